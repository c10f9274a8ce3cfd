"""Measures collectives on the ranks of a job that `distrun bench-comm` launches."""
