"""engine/exports."""
