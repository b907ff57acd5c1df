"""What travels between two daemons, as values: bytes in, messages out, and back. No socket, no clock, no loop.

limits.py    every size that a peer may send
frames.py    the 32 bytes in front of every frame
messages.py  the messages, one struct each, and their numbers
codec.py     encode a message; a decoder that says where the next bytes belong and tells when a message is whole
hello.py     the first exchange of a link: what both sides agree on, or why not
invitation.py  the token of an invitation, and the proofs that two sites know its secret
presence.py  lists of regions and digests, packed; one long list as several RESUMEs
"""
