"""The command line: one file a command; parses, calls `api`, renders. Nothing else prints."""
