"""From exec to the first finished all_reduce, and the memory of idle ranks, against torchrun.

    python -m benchmarks.startup [--pairs 5]

Both sides run alternately in one go, from exec of the command (checks, supervisor and
all) to the moment rank 0 has the result of its first all_reduce.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import sides

WORKER = """
import os, time
from pathlib import Path
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
x = torch.ones(1)
dist.all_reduce(x)
if dist.get_rank() == 0:
    Path("first").write_text(str(time.time() - float(os.environ["BENCH_BEGAN"])))
if os.environ.get("BENCH_IDLE"):
    Path(f"pid{os.environ['RANK']}").write_text(str(os.getpid()))
    while not Path("enough").exists():
        time.sleep(0.1)
dist.barrier()
dist.destroy_process_group()
"""
Side = Callable[..., list[str]]


def first_all_reduce_s(side: Side, nproc: int, script: Path) -> float:
    _, cwd = sides.run_in_temp(side(nproc, str(script)))
    seconds = float((cwd / "first").read_text())
    shutil.rmtree(cwd)
    return seconds


def idle_pss_mib(side: Side, nproc: int, script: Path, cwd: Path) -> float:
    """Return the sum of the ranks' proportional set sizes, all of them idle after a step."""
    cwd.mkdir()
    environ = {**sides.ENVIRON, "BENCH_BEGAN": "0", "BENCH_IDLE": "1"}
    process = subprocess.Popen(
        side(nproc, str(script)),
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = [cwd / f"pid{rank}" for rank in range(nproc)]
    while process.poll() is None and not all(p.exists() and p.read_text() for p in pids):
        time.sleep(0.1)
    total = sum(_pss_kib(int(path.read_text())) for path in pids) / 1024
    (cwd / "enough").touch()
    process.wait(timeout=60)
    return total


def _pss_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    _, home = sides.run_in_temp(["true"])
    script = home / "worker.py"
    script.write_text(WORKER)
    for nproc, goal in ((2, "0.70"), (8, "0.30")):
        ours, theirs = [], []
        for _ in range(pairs):
            theirs.append(first_all_reduce_s(sides.torchrun, nproc, script))
            ours.append(first_all_reduce_s(sides.distrun, nproc, script))
        sides.report(f"exec to first all_reduce, {nproc} ranks", ours, theirs, goal)
    a = idle_pss_mib(sides.distrun, 8, script, home / "ours")
    b = idle_pss_mib(sides.torchrun, 8, script, home / "theirs")
    print(f"PSS of 8 idle ranks\n  distrun  {a:.0f} MiB\n  torchrun {b:.0f} MiB")
    print(f"  ratio    {a / b:.2f}  goal 0.40")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
