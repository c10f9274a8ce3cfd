"""Long-lived children: start, tee, stop, first failure. The only Popen of them is here."""
