"""One rule a file over what probes have read; a rule raises the error that tells and cures."""
