"""Reads this machine into frozen snapshots; never judges what it finds."""
