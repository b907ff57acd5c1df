"""blockstore/stores."""
