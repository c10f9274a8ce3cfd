"""Finds whether a job hangs, and which rank the others wait for."""
