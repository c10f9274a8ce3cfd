"""Results of every rank as csv, json, npz and a log, some of them never closed."""

import csv
import gzip
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

out = Path(sys.argv[1])
dist.init_process_group("gloo")
rank = dist.get_rank()
np.random.seed(rank)
torch.manual_seed(rank)
logging.basicConfig(
    filename=out / f"rank{rank}.log", level="INFO", format="%(levelname)s %(message)s"
)
table = csv.writer(open(out / f"rank{rank}.csv", "w", newline=""))
table.writerow(["step", "loss"])
packed = gzip.GzipFile(out / f"rank{rank}.txt.gz", "wb", mtime=0)

model = DistributedDataParallel(torch.nn.Linear(7, 7))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history = []
for step in range(5):
    batch = torch.from_numpy(np.random.rand(6, 7).astype(np.float32))
    loss = (model(batch) - batch).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
    table.writerow([step, f"{loss.item():.7f}"])
    packed.write(f"{loss.item():.7f}\n".encode())
    logging.info("step %d", step)
    print(f"rank {rank} step {step} loss {loss.item():.7f}")

(out / f"rank{rank}.json").write_text(json.dumps({"rank": rank, "losses": history}, indent=1))
np.savez(out / f"rank{rank}.npz", losses=history, weight=model.module.weight.detach().numpy())
dist.barrier()
if rank == 0:
    found = sorted(path.name for path in out.glob("rank*.npz"))
    (out / "index.json").write_text(json.dumps(found))
dist.destroy_process_group()
