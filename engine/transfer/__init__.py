"""The copy path between two sites, one pipeline for a seed and for a delta of any size.

source.py    what the sender asks of the blocks' holder, of the redo log and of the link (protocols)
sender.py    Shipper: regions -> frames on the link, in step with the receiver's window
outgoing.py  what the sender remembers of frames that left, and how small ones are joined
examine.py   what a frame will hold: zero, equal and changed blocks of one buffer, in one call of the pool
receiver.py  ReceiveSession: frames -> layers, verified and durable
saying.py    what the receiver says while it works: grants, what has landed, what to send again
pipeline.py  page-aligned buffers, the window, and tasks that are joined
codecs.py    pieces of a frame to lz4 or zstd and back
"""
