"""Reads this machine into frozen snapshots; it does not judge them."""
