"""engine/link."""
