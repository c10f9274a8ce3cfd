"""Pure arithmetic: what was asked + what was found -> the plan. Starts nothing, reads nothing."""
