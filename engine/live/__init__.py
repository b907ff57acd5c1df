"""What runs: the site, its groups and jobs, from boot to the end. It holds no story and takes no decision.

site.py       groups by name and id, requests that become jobs, documents
requests.py   request -> story                  jobs.py     jobs that outlive their client
group.py      one group: its queue of syncs, the peer's questions in order, its folds
router.py     whom a message of a link is for   events.py   what operators may want to know
boot.py       records made real                 upkeep.py   what happens by the clock
scheduler.py  syncs that keep an RPO            shutdown.py the clean stop
"""
