"""A run directory as one HTML file; several of them compared."""
