"""`distrun bench-comm`: the command, and how its tables, files and plots are made."""
