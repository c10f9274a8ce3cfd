"""Rules of `distrun check`: each is a pure function from snapshots to findings, one per file."""
