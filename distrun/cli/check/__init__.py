"""`distrun check`: the command, and how its findings are shown and written."""
