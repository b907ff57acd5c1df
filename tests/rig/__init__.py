"""What tests and benchmarks stand on: real daemons, real images, a second opinion on every write.

    ports.py    free TCP ports
    nbd.py      a small NBD client of our own
    blocks.py   seeded writes of numbered blocks, and the record of them
    images.py   file-system images that hold a real tree; compare two of them
    loop.py     loop devices, and file systems mounted through them
    daemon.py   one `leeward serve` in its own directory; kill it, restart it, run commands
    pair.py     two paired daemons and a group
    sides.py    such a pair, and what each side of it must show

Imported as `rig.daemon` (pyproject.toml puts `tests` on the path). Nothing here may import the product: it
sees what an operator sees, the command line and the NBD exports.
"""
