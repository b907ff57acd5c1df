-- How fast this site may send to its peers, by day and time, as an operator wrote it; empty: no limit.
ALTER TABLE site ADD COLUMN link_limit TEXT NOT NULL DEFAULT '';
