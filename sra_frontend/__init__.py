"""sra_frontend."""
