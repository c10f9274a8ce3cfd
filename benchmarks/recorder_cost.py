"""What the recorder of a rank costs a step: asked every second, against none at all.

    python -m benchmarks.recorder_cost [--quick]

Two jobs of two ranks each (gloo, one host) run in turn, in blocks of about a second. Of one job,
torch's flight recorder is on, and the thread that answers is there; of the other both are off
(TORCH_FR_BUFFER_SIZE=0). A block counts as long as its slower rank takes, and the ratio is of two
neighbouring blocks. CPU time is that of both ranks, all their threads: on a busy machine it tells
more than the clock. The ranks are forked by the agent's own forkserver, and asked by its own parts.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import NamedTuple

import torch
import torch.distributed as dist

import distrun.agent.last_exit  # noqa: F401 - first, as in an agent
from benchmarks.comm_overhead import spread
from distrun import env
from distrun.agent.forks import Forks
from distrun.agent.forkserver import Forkserver
from distrun.agent.looks import Looks
from distrun.agent.rank import Rank
from distrun.agent.records import Records
from distrun.listen import free_port, listen_at

NRANKS = 2
LOOK_S = 1.0
HANDED = (None, None, None)


def ddp_step() -> Callable[[], object]:
    layers = [torch.nn.Linear(256, 256) for _ in range(4)]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer, x = torch.optim.SGD(model.parameters(), 0.01), torch.randn(32, 256)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def bare_all_reduce() -> Callable[[], object]:
    x = torch.zeros(1024)
    return lambda: dist.all_reduce(x)


LOOPS = {"DDP, 4 layers of 256": ddp_step, "all_reduce of 4 KiB": bare_all_reduce}


def be_rank(address: tuple[str, int]) -> None:
    """Run the loops that are asked for, so many steps; answer with seconds, and CPU seconds."""
    torch.set_num_threads(1)  # torch is imported already
    dist.init_process_group("gloo")
    steps = [make() for make in LOOPS.values()]
    with socket.create_connection(address) as channel, channel.makefile("rw") as lines:
        for line in lines:
            number, count = map(int, line.split())
            dist.barrier()
            began, cpu_began = time.perf_counter(), time.process_time()
            for _ in repeat(None, count):
                steps[number]()
            taken_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
            lines.write(f"{taken_s} {cpu_s}\n")
            lines.flush()
    dist.destroy_process_group()


class Taken(NamedTuple):
    """What a block of steps took, in seconds."""

    clock: float
    """Of the slower rank."""
    cpu: float
    """Of all ranks."""


class Job(NamedTuple):
    """The ranks of one side."""

    channels: list[socket.socket]

    def block(self, loop: int, steps: int) -> Taken:
        """Run so many steps; return what they took."""
        for channel in self.channels:
            channel.sendall(f"{loop} {steps}\n".encode())
        told = [channel.recv(100).split() for channel in self.channels]
        return Taken(max(float(taken) for taken, _ in told), sum(float(cpu) for _, cpu in told))


class Node:
    """What an agent has of its ranks, without its supervisor."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks
        self._selector = selectors.DefaultSelector()
        self._selector.register(forks, selectors.EVENT_READ, self._on_forks)
        self._ranks: list[Rank] = []
        self.answers = 0
        self._records = Records(self._selector, lambda: {r.pid for r in self._ranks if r.pid})
        self._looks = Looks(self._records, lambda: self._ranks, self._told)
        forks.begin(self._records.environment(os.environ))

    def start(self, environ: Mapping[str, str]) -> Job:
        """Start the ranks of a job; return when all are there."""
        listener = listen_at("127.0.0.1", 0)
        port = str(free_port())
        ranks = [Rank(rank, apart=False) for rank in range(NRANKS)]
        self._ranks += ranks
        for rank in ranks:
            own = {"RANK": str(rank.rank), "WORLD_SIZE": str(NRANKS), "MASTER_PORT": port}
            own |= {"MASTER_ADDR": "127.0.0.1", "BENCH": str(listener.getsockname()[1])}
            self._forks.ask({**own, **environ}, [sys.executable, "-u"], rank.open(HANDED))
        while not all(rank.pid for rank in ranks):
            self.turn(0.1)
        return Job([listener.accept()[0] for _ in ranks])

    def look_while(self, goes_on: Callable[[], bool]) -> None:
        """Ask all ranks every second."""
        due = time.monotonic()
        while goes_on():
            if time.monotonic() >= due:
                due += LOOK_S
                self._looks.look()
            self.turn(0.05)

    def turn(self, limit_s: float) -> None:
        """Take what comes."""
        for key, _ in self._selector.select(limit_s):
            key.data()
        self._looks.on_time()

    def _on_forks(self) -> None:
        for reply in self._forks.read() or ():
            if "pid" in reply:
                next(rank for rank in self._ranks if not rank.pid).pid = reply["pid"]

    def _told(self, name: str, **fields: object) -> None:
        assert name == "looked" and isinstance(fields["ranks"], list)
        self.answers += sum(told["answer"] is not None for told in fields["ranks"])


def in_turn(sides: Mapping[str, Job], loop: int, pairs: int, block_s: float) -> None:
    """Run blocks of both sides in turn, and print what their steps took."""
    ours, steps = sides["with"], 20
    while (taken_s := ours.block(loop, steps).clock) < block_s / 4:
        steps *= 2
    steps = max(1, round(steps * block_s / taken_s))
    found: dict[str, list[Taken]] = {name: [] for name in sides}
    for number in range(pairs):
        for name in [*sides][:: 1 if number % 2 else -1]:
            found[name].append(sides[name].block(loop, steps))
    for what in Taken._fields:
        values = {n: [getattr(taken, what) for taken in f] for n, f in found.items()}
        for name, taken in values.items():
            print(f"  {what:5} {name:8} {spread([s / steps * 1e6 for s in taken], 1)} us a step")
        ratios = [a / b for a, b in zip(*values.values(), strict=True)]
        print(f"  {what:5} ratio    {spread(ratios, 4)}  goal <= 1.01, {pairs} pairs", flush=True)


def measure(node: Node, pairs: int, block_s: float) -> None:
    sides = {"with": node.start({}), "without": node.start({"TORCH_FR_BUFFER_SIZE": "0"})}
    for loop, title in enumerate(LOOPS):
        print(title)
        before = node.answers
        work = threading.Thread(target=in_turn, args=(sides, loop, pairs, block_s))
        work.start()
        node.look_while(work.is_alive)
        print(f"  {node.answers - before} answers", flush=True)
    for job in sides.values():
        for channel in job.channels:
            channel.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    pairs, block_s = (4, 0.2) if parser.parse_args().quick else (20, 1.0)
    os.environ |= {env.TAG: f"bench{os.getpid()}/0", "GLOO_SOCKET_IFNAME": "lo"}
    here, there = socket.socketpair()
    if (server := os.fork()) == 0:
        here.close()
        Forkserver(there, warm=True).serve()
        be_rank(("127.0.0.1", int(os.environ["BENCH"])))
        return
    there.close()
    try:
        measure(Node(Forks(here, server)), pairs, block_s)
    finally:
        here.close()  # it ends, and its ranks with it
        os.waitpid(server, 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
