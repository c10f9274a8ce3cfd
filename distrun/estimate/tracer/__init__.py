"""Runs a script's own parts without devices and ranks, and records what one rank does in one step.

It runs only in a child process, `python -m distrun.estimate.tracer`: torch may abort in C.
"""
