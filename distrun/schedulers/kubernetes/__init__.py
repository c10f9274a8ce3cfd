"""Kubernetes: a launch submits a job to it, and nothing reaches its pods from here."""
