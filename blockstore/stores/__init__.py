"""Where bytes live, with no knowledge of replication; every kind passes the same tests.

base.py     BlockStore, what every kind offers, and what all kinds on this host's disks share
file.py     a regular file
device.py   a loop or other block device
surface.py  StoreSurface: a store as what a writer writes on
kinds.py    the table of kinds: which one a path is, exclusive use, making a new one
"""
