-- Ids are 16-byte blobs, times whole microseconds since 1970 UTC, flags 0 or 1. Numbers that may need all 64 bits
-- (hash_seed, identity_inode, directory_check) are 8-byte little-endian blobs: SQLite's integers are signed.

CREATE TABLE site (
    only INTEGER PRIMARY KEY CHECK (only = 1), id BLOB NOT NULL, name TEXT NOT NULL, created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE peer (
    name TEXT PRIMARY KEY, address TEXT NOT NULL, fingerprint TEXT NOT NULL, plain INTEGER NOT NULL,
    id BLOB, added_us INTEGER NOT NULL
) STRICT;

CREATE TABLE volume (
    id BLOB PRIMARY KEY, name TEXT NOT NULL, store TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    prepared INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    group_id BLOB REFERENCES "group"(id), position INTEGER NOT NULL DEFAULT 0,
    tracking BLOB, nonce BLOB NOT NULL, writes INTEGER NOT NULL DEFAULT 0,
    hash_seed BLOB NOT NULL, wwn TEXT NOT NULL,
    identity_size INTEGER, identity_inode BLOB, identity_mtime_ns INTEGER, identity_ctime_ns INTEGER,
    top BLOB,
    -- a promotion under way: files of this tracking may stand on the disk, the one in force is `tracking`
    tracking_next BLOB
) STRICT;
CREATE UNIQUE INDEX volume_name ON volume(name) WHERE state <> 'dead';

CREATE TABLE "group" (
    id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, role TEXT NOT NULL,
    term INTEGER NOT NULL, peer TEXT NOT NULL REFERENCES peer(name),
    rpo_s INTEGER, keep INTEGER NOT NULL, announced INTEGER NOT NULL,
    -- the newest common point, kept whole: the protected side has no row for it in `point`
    common_id BLOB, common_sequence INTEGER, common_captured_us INTEGER, common_sealed_us INTEGER,
    common_generation BLOB, common_digest BLOB, common_bytes INTEGER,
    equal_us INTEGER, generation_due INTEGER NOT NULL, generation BLOB,
    -- pending (protected side) and incoming (recovery side); NULL sync: none
    pending_sync BLOB, pending_point BLOB, pending_sequence INTEGER, pending_captured_us INTEGER, pending_state TEXT,
    incoming_sync BLOB, incoming_point BLOB, incoming_sequence INTEGER, incoming_builds_on BLOB,
    incoming_captured_us INTEGER, incoming_plan BLOB, incoming_blocks INTEGER,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE generation (
    id BLOB PRIMARY KEY, group_id BLOB NOT NULL REFERENCES "group"(id) ON DELETE CASCADE,
    parent BLOB, site BLOB NOT NULL, common BLOB, began_us INTEGER NOT NULL, writes INTEGER NOT NULL
) STRICT;

CREATE TABLE point (
    id BLOB PRIMARY KEY, group_id BLOB NOT NULL REFERENCES "group"(id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL, captured_us INTEGER NOT NULL, sealed_us INTEGER NOT NULL,
    generation BLOB, digest BLOB NOT NULL, bytes INTEGER NOT NULL,
    UNIQUE (group_id, sequence)
) STRICT;

CREATE TABLE pin (
    point BLOB NOT NULL REFERENCES point(id), holder TEXT NOT NULL, PRIMARY KEY (point, holder)
) STRICT;

CREATE TABLE layer (
    id BLOB PRIMARY KEY, volume BLOB NOT NULL REFERENCES volume(id), kind TEXT NOT NULL, state TEXT NOT NULL,
    sync BLOB, builds_on BLOB, point BLOB, position INTEGER NOT NULL, image_bytes INTEGER NOT NULL,
    length_bytes INTEGER NOT NULL DEFAULT 0, directory_offset INTEGER NOT NULL DEFAULT 0,
    directory_check BLOB NOT NULL DEFAULT x'', blocks INTEGER NOT NULL DEFAULT 0, digest BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX layer_volume ON layer(volume, position);
CREATE INDEX layer_point ON layer(point);

CREATE TABLE snapshot (
    id BLOB PRIMARY KEY, group_id BLOB NOT NULL REFERENCES "group"(id), name TEXT NOT NULL,
    point BLOB NOT NULL REFERENCES point(id), state TEXT NOT NULL, layers BLOB NOT NULL, wwns TEXT NOT NULL, created_us INTEGER NOT NULL,
    UNIQUE (group_id, name)
) STRICT;

CREATE TABLE job (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, group_name TEXT, request TEXT NOT NULL,
    state TEXT NOT NULL, outcome TEXT, error TEXT,
    created_us INTEGER NOT NULL, started_us INTEGER, finished_us INTEGER
) STRICT;
CREATE INDEX job_key ON job(key);

CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, level TEXT NOT NULL, code TEXT NOT NULL,
    group_name TEXT, message TEXT NOT NULL, details TEXT NOT NULL
) STRICT;
