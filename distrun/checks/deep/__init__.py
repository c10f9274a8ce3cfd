"""Rules over the measurements of `distrun check --deep`."""
