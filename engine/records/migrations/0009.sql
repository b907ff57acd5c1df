-- Since when an operator has paused the syncs of a group at this site; NULL: they are not.
ALTER TABLE "group" ADD COLUMN paused_us INTEGER;
