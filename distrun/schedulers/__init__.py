"""Where a plan is carried out: each scheduler has the same functions."""
