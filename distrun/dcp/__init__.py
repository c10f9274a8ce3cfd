"""Checkpoint files for torch.distributed.checkpoint (DCP), and their export."""
