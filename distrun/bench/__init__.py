"""Measures collectives on the ranks of an ordinary job; `distrun bench-comm` starts it."""
