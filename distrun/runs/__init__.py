"""The run directory: its paths, its record, and the list of runs."""
