"""The few things that three or more recipes need and that hide no idea."""
