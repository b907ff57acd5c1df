"""engine/operations."""
