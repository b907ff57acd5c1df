"""Which blocks changed, and the order that never loses one: durable mark, then bit, then data.

bitmap.py      Bitmap: bits by region with a summary; LiveMap: one in memory that survives SIGKILL
pmap.py        PagedBitmap: the copy on disk, twin pages with checks; overlays keep their presence in one as well
intent.py      IntentLog: which regions are hot, two slots
hot.py         HotSet: who waits for which record, what may cool
checkpoint.py  Checkpoint: writes pages of dirty bits, one step at a time
inflight.py    InFlight: writes that were dispatched and are not complete
tracker.py     ChangeTracker: ties them together; the only one the write path sees
recovery.py    making the files of a tracking, and reading them again after a stop, a kill or a power cut
"""
