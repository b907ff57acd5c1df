-- When every block of a volume was last seen to be the same at both sides.
ALTER TABLE volume ADD COLUMN verified_us INTEGER;
