"""Joins a gloo group, says so and at which port, and waits for the file `go`."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

dist.init_process_group()
dist.all_reduce(torch.ones(1))
if dist.get_rank() == 0:
    Path("port").write_text(os.environ["MASTER_PORT"])
dist.barrier()
Path(f"joined-{dist.get_rank()}").touch()
while not Path("go").exists():
    time.sleep(0.02)
dist.destroy_process_group()
