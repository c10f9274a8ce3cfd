"""Checked mode: the ranks of a group compare their calls before anything is sent."""
