"""The command line: a client of the API. Commands take words, ask one thing, and show the answer.

main.py        the table of commands, and the edge where errors become one line and an exit status
call.py        Call: what every command is given; --data and --json
quantities.py  sizes and durations as they are typed
output.py      the only place that prints: one JSON document, or tables and lines; progress
words.py       numbers and times as people read them
confirm.py     the question before what is hard to take back
waiting.py     submits a request, waits for its job, shows how it goes
views.py       a group, a site and a job as people read them
site.py        init, serve          link.py   peer.py   volume.py   group.py   snapshot.py   export.py
sync.py        sync, pause, resume, points         verify.py   promote.py   roles.py   status.py   events.py   jobs.py
about.py       version, errors, completion, demo
demo.py        what `leeward demo` tells; drill.py what it tells with --drill; demo_site.py what both tell it with;
               demo_record.py what the drill compares images with

A command imports what it runs on when it runs: `leeward version` and shell completion have to be quick.
"""
