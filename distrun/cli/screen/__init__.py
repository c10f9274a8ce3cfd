"""What stands on the screen while a run goes on, and when it has ended."""
