"""Rules about one GPU, or the GPUs of one node."""
