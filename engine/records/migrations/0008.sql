-- When the RPO of a group began to be kept (1), was broken (0), or was promised no more (NULL). A day of it is kept.
CREATE TABLE promise (
    group_id BLOB NOT NULL REFERENCES "group"(id) ON DELETE CASCADE, at_us INTEGER NOT NULL, kept INTEGER
) STRICT;
CREATE INDEX promise_of_group ON promise (group_id, at_us);
