"""Memory, traffic and step time of a job before it runs."""
