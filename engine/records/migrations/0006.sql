-- Set-asides that hosts may read: whether the operator asked for it.
ALTER TABLE set_aside ADD COLUMN exported INTEGER NOT NULL DEFAULT 0;
