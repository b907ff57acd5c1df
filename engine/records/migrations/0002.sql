-- A store that was prepared for the peer may be larger than the volume: its own size, NULL where both are the same.
ALTER TABLE volume ADD COLUMN store_bytes INTEGER;
