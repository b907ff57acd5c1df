"""What to do, worked out from values: no I/O, no clock. One question a file.

lineage.py      two standings -> verdict      roles.py    request x role -> legal, already, refused
yielding.py     who gives way after a promotion, and what that would discard
transitions.py  what each step of a sync or role change makes of a group's record
plan.py         changed regions -> batches    compression.py  sizes and times -> codec
calendar.py     how fast a site may send, by day and time
schedule.py     when a sync must begin, whether an RPO was kept
status.py       what a state is called, lag   retention.py    points, count, schedule -> which points go
"""
