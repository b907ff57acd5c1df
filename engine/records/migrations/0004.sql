-- Invitations: how a site that is not known yet may become a peer, once (docs/protocol.md, Pairing). `key` proves the
-- secret, which is never here; empty when the invitation is over. `used_by`: fingerprint of the site that was let in.
CREATE TABLE invitation (
    id BLOB PRIMARY KEY, peer TEXT NOT NULL, key BLOB NOT NULL, made_us INTEGER NOT NULL, expires_us INTEGER NOT NULL,
    wrong INTEGER NOT NULL DEFAULT 0, used_by TEXT
) STRICT;
