"""The process of one node: torch's elastic engine, with ranks forked from a warm process.

`main.py` is the program. `testing` uses the forkserver of this room too.
"""
