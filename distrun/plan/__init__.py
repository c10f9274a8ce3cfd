"""Computes the plan of a launch from the job and the facts; it starts and reads nothing."""
