"""How hosts reach a volume; each kind of export is a row of the presenter's table.

presenter.py        the table of kinds: present, withdraw, URI
nbd_server.py       which NBD exports there are and who uses them; listening; reports
nbd_connection.py   one client: greeting to farewell, pacing
nbd_handshake.py    pure: fixed newstyle, from the greeting to an agreed Transmission
nbd_protocol.py     pure: requests, refusals, replies, limits
nbd_inbox.py        bytes in, cut into requests    nbd_outbox.py   replies out, gathered
nbd_exchange.py     what all requests of a connection share: tasks in flight, waits, failures
nbd_writes.py       writes, trims, zeroes, flushes    nbd_reads.py   reads, block status
buffers.py          reused buffers, counted by connection and by server
reports.py          reports, each kind about each thing once in a while
"""
