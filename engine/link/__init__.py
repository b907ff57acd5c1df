"""The links of a site: one connection with every peer, authenticated, watched, made again when it breaks.

peer.py        Links: who is a peer, which of two connections stays, waiting for a link
peer_link.py   PeerLink, one link that stands; LinkHandler, what a site does with it
dialer.py      dials one peer until there is a link
listener.py    lets strangers in, a few at a time, until they have said who they are
connecting.py  TCP and TLS to an address          pairing.py    one PAIR, one answer, for sites that are not peers yet
candidate.py   a connection before it is a link
transport.py   one connection: socket or TLS to codec and back, without copies
tls.py         TLS 1.3 on both sides     identity.py  the site's key and certificate
address.py     HOST:PORT, loopback       sockets.py   socket options
timing.py      every interval and count  complaints.py  a failure that repeats is reported once
"""
