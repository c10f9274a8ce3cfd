"""Where a plan runs; every scheduler has the same functions."""
