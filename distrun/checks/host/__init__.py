"""Rules about one host."""
