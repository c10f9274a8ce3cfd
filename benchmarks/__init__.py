"""Benchmarks: ratios, both sides in one run, with their spread."""
