"""The output on the screen during a run and after its end."""
