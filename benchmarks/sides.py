"""The two sides that every benchmark compares, and how a comparison is printed."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(nproc: int, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={nproc}", *words),
    ]


def distrun(nproc: int, *words: str) -> list[str]:
    return [sys.executable, "-m", "distrun", "launch", f"--nproc-per-node={nproc}", *words]


def run_in_temp(command: Sequence[str], *, stdout: int = subprocess.DEVNULL) -> tuple[float, Path]:
    """Run a command to its end in a new directory; return its seconds and the directory."""
    cwd = Path(tempfile.mkdtemp(prefix="distrun-bench-"))
    began = time.time()
    subprocess.run(
        command,
        cwd=cwd,
        env={**ENVIRON, "BENCH_BEGAN": str(began)},
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        timeout=300,
    )
    return time.time() - began, cwd


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Return `median (min … max)`."""
    return f"{statistics.median(values):.2f} {unit} ({min(values):.2f} … {max(values):.2f})"


def report(title: str, ours: Sequence[float], theirs: Sequence[float], goal: str) -> None:
    """Print one comparison: both sides, and the ratio of each pair of neighbouring runs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"{title}\n  distrun  {spread(ours)}\n  torchrun {spread(theirs)}")
    print(f"  ratio    {spread(ratios, '')}  goal {goal}, {len(ours)} pairs", flush=True)
