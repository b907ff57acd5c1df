"""engine/transfer."""
