"""blockstore/tracking."""
