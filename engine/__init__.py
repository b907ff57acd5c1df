"""Replication between two sites. Each folder imports only from those below it (docs/architecture.md).

cli/          the command line            api/         HTTP and JSON on the unix socket
serve.py      where everything meets      setup.py     `leeward init`
live/         what runs                   operations/  the stories: sync, receive, promote, snapshot, fold
transfer/     the copy path               exports/     how hosts reach a volume
link/         authenticated connections   records/     the truth, in SQLite
wire/         messages and bytes, pure    decide/      what to do, pure
errors/       the failures, by part
requests/     what may be asked, and the answers
model.py settings.py pool.py clock.py log.py notify.py version.py    the floor
"""
