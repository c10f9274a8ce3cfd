"""Rules that compare nodes with one another."""
