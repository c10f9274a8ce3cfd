"""Conversations with a program on a node: its start, messages both ways, its words, its end."""
