"""The process that owns a run: it starts the agents, writes the logs, stops and restarts."""
