"""Bytes on this host: stores, tracking, layers, images, captures. Synchronous; no loop, network, SQL or policy.

units.py blockset.py errors.py steps.py    the floor: rounding, sets of blocks, failures, work handed back
disk.py                                    the one place that opens, syncs, maps and punches
stores/ tracking/                          where bytes live; which blocks changed
layer.py                                   what the parts ask of each other: block I/O, layers, receiving
frame.py pack*.py receiving.py redo.py     layers that came over the wire: append-only files of frames
seed.py                                    the first copy, straight into the base
overlay.py overlay_io.py frozen.py         layers that hosts write, and those that they wrote
image.py read_only.py fold.py merge.py     reading newest wins, and no more than reading; folding and merging
digests.py                                 two images compared without moving them
hashes.py zero_pages.py holes.py           a hash for every block; as sparse as the volume; where a store has no data
capture.py prepared.py                     one instant of many volumes
writer.py volume.py                        the write path; all of it opened
"""
