"""What a start over ssh costs: two hosts of namespaces beside two nodes on this machine, in turn.

    python -m benchmarks.remote_start [--pairs 5]

Needs root and OpenSSH's server. The time is that of a whole launch whose ranks do one all_reduce.
The goal: at most 0.5 s more.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sides import spread
from tests.cluster.hosts import Hosts

GOAL_S = 0.5
SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
"""


def seconds(hosts: Hosts, cwd: Path, *where: str) -> float:
    """Launch once to the end."""
    words = [sys.executable, "-m", "distrun", "launch", "-q", *where, "--nproc-per-node", "1"]
    began = time.monotonic()
    subprocess.run(
        [*words, "train.py"],
        cwd=cwd,
        env=hosts.ssh_environ(),
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    remote, local = [], []
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as name:
        home = Path(name)
        (home / "hosts").mkdir()
        (home / "train.py").write_text(SCRIPT)
        hosts = Hosts(home / "hosts", names=("n01", "n02"), visible=[home])
        try:
            for _ in range(options.pairs):
                remote.append(seconds(hosts, home, "--hosts", "n01,n02"))
                local.append(seconds(hosts, home, "--nodes", "2"))
        finally:
            hosts.close()
    more = [a - b for a, b in zip(remote, local, strict=True)]
    print(f"two hosts behind ssh   {spread(remote)}\ntwo nodes here         {spread(local)}")
    print(f"more                   {spread(more)}  goal {GOAL_S} s, {options.pairs} pairs")
    return int(statistics.median(more) > GOAL_S)


if __name__ == "__main__":
    sys.exit(main())
