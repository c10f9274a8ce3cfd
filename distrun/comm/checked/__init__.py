"""Checked mode: before anything is sent, the ranks of a group compare what they call."""
