"""What `distrun.comm` itself costs, without the noise of waiting: CPU time and instructions.

    python -m benchmarks.comm_cpu [--instructions]

One rank, where nothing is sent: `world.all_reduce` against `torch.distributed.all_reduce`; and
the checker by itself, with nobody to wait for. CPU time is the thread's own clock; blocks of both
sides in turn, the median of each. With `--instructions` valgrind counts them (in minutes): each
side runs in forks of one process, with few calls and with many, and the difference is theirs.
`perf stat` does as well where the machine has counters, which most virtual ones lack.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from distrun import comm
from distrun.comm.checked.checker import BoardChecker
from distrun.comm.checked.shared_memory import SharedMemoryBoard, new_file
from distrun.processes import start_time

CALLS, BLOCKS = 200, 200
FEW, MANY = 100, 1100
SIZES = {"4 B": 1, "64 KiB": 2**14, "1 MiB": 2**18}

TITLES = [*(f"all_reduce {size}, in place" for size in SIZES), "the checker alone"]

Call = Callable[[], object]


class Case(NamedTuple):
    ours: Call
    theirs: Call


def nothing() -> None:
    pass


def cases(world: comm.World) -> Iterator[Case]:
    """Yield what is compared, in the order of `TITLES`."""
    for floats in SIZES.values():
        x = torch.zeros(floats)
        yield Case(partial(world.all_reduce, x, out=x), partial(dist.all_reduce, x))
    small = torch.zeros(1)
    path = new_file(1)
    board = SharedMemoryBoard(path, 0, [(os.getpid(), start_time(os.getpid()))])
    path.unlink()
    checker = BoardChecker(board, "the world", 60.0)
    check = partial(checker.check, "all_reduce", (small,), {"op": "sum"})
    yield Case(check, nothing)


def run(call: Call, calls: int) -> None:
    for _ in repeat(None, calls):
        call()


def cpu_us(call: Call) -> float:
    """Return the CPU time of one call in a block of them."""
    began = time.thread_time_ns()
    run(call, CALLS)
    return (time.thread_time_ns() - began) / CALLS / 1e3


def show_cpu_time() -> None:
    with comm.init("gloo", check=False) as world:
        for title, case in zip(TITLES, cases(world), strict=True):
            run(case.ours, CALLS)
            run(case.theirs, CALLS)
            pairs = [(cpu_us(case.ours), cpu_us(case.theirs)) for _ in range(BLOCKS)]
            ours, theirs = map(statistics.median, zip(*pairs, strict=True))
            more = statistics.median(a - b for a, b in pairs)
            print(f"{title:28} {ours:8.2f} / {theirs:8.2f} µs of CPU   {more:6.2f} more")


def show_instructions() -> None:
    """Run this file under valgrind, and read what it has counted in each fork."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("valgrind", "-q", "--tool=cachegrind", "--cache-sim=no")
        out = f"--cachegrind-out-file={folder}/%p"
        told = subprocess.run(
            [*command, out, sys.executable, "-m", "benchmarks.comm_cpu", "--forks"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        for line in told.splitlines():
            title, *pids = line.split("\t")
            few, many, their_few, their_many = (summary(Path(folder, pid)) for pid in pids)
            ours, theirs = (
                (b - a) // (MANY - FEW) for a, b in ((few, many), (their_few, their_many))
            )
            print(f"{title:28} {ours:8d} / {theirs:8d} instructions   {ours - theirs:6d} more")


def summary(file: Path) -> int:
    (found,) = re.findall(r"^summary:\s+(\d+)", file.read_text(), re.MULTILINE)
    return int(found)


def forks() -> None:
    """Run each side in forks of this process, which has only imported, and print their pids."""
    for number, title in enumerate(TITLES):
        pids = [fork(number, side, calls) for side in ("ours", "theirs") for calls in (FEW, MANY)]
        print(title, *pids, sep="\t", flush=True)


def fork(number: int, side: str, calls: int) -> int:
    pid = os.fork()
    if pid == 0:
        with comm.init("gloo", check=False) as world:
            run(getattr(list(cases(world))[number], side), calls)
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--forks", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.forks:
        forks()
        return
    show_cpu_time()
    if asked.instructions:
        show_instructions()


if __name__ == "__main__":
    main()
