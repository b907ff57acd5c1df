-- Role changes: what a side that yielded still holds, and what was discarded and is kept until it is dropped.
ALTER TABLE "group" ADD COLUMN own_image INTEGER NOT NULL DEFAULT 0;
ALTER TABLE "group" ADD COLUMN consent_term INTEGER;

CREATE TABLE set_aside (
    id BLOB PRIMARY KEY, group_id BLOB NOT NULL REFERENCES "group"(id), name TEXT NOT NULL, why TEXT NOT NULL,
    kind TEXT NOT NULL, base BLOB, layers BLOB NOT NULL, blocks INTEGER NOT NULL, created_us INTEGER NOT NULL,
    UNIQUE (group_id, name)
) STRICT;
