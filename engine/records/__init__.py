"""The truth of a site in SQLite: plain functions inside a transaction, and the only SQL of the product.

    database.py    the connection, its thread, transact(); what happens when SQLite fails
    ballast.py     space kept back so that metadata can still commit on a full disk
    columns.py     how ids, times and 64-bit numbers become columns
    lock.py        one daemon to a data directory
    migrate.py     numbered migrations, one transaction each
    site.py  peers.py  volumes.py  layers.py  points.py  pins.py  groups.py  generations.py  snapshots.py  jobs.py
    events.py  invitations.py  promises.py      one table each: rows <-> values of `engine.model`
    incoming.py    a sync being received: begin, renew, drop
    roles.py       demote, its undoing, and yield; set_asides.py what is kept of what a yield discarded
    promote.py     a recovery point becomes writable: prepare, commit, cancel
    folds.py       the oldest layer goes into the base: start, finish; and what retention may fold
    merges.py      points go from the middle, and their layers into the next one: drop, start, finish, cancel
    retention.py   which points stay, as an operator asked; the space that points take

A function takes the connection first and belongs inside `Database.transact` (or `read`): what one transaction
calls is recorded as one. None of them commits.
"""
