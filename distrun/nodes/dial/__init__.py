"""Nodes that nothing here can start a program on dial in to the head of their run."""
