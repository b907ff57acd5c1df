"""The stories, each told from top to bottom: decide in `decide`, record in `records`, then make things match.

sync.py sources.py shipping.py capture.py    the protected end of a sync
pacing.py budget.py pause.py                 which yields to hosts, other groups and operators
receive.py staging.py                        its recovery end
verify.py                                    both sides compared, and what differs sent again
contact.py announce.py conversation.py       what two sites tell each other of a group
promote.py snapshot.py converge.py           recovery points made writable, copied; records made real
retention.py fold.py                         what of them goes: dropped, merged, folded
groups.py volumes.py peers.py                what comes and goes
opening.py reopen.py                         layers and overlays opened; a volume that failed, once more
pairing.py                                   two sites become peers by one invitation
demote.py reverse.py yielding.py holding.py  who is writable: hosts held, guards checked, one side gives way
changed.py aside.py                          what the side that gave way had changed, and keeps
context.py handles.py                        what a story may touch, and what runs
documents.py refusals.py                     values for clients and peers
"""
