"""Runs a function on ranks that are processes, forked from a warm server."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from distrun.env import scrubbed
from distrun.processes import send, widen_pipe
from distrun.signals import STACKS
from distrun.testing.by_value import pickled
from distrun.testing.failure import RankFailure, RunRanksError, is_own, raise_for, still_running
from distrun.testing.output import prefixed
from distrun.testing.plan import RankPlan
from distrun.testing.server import Outcome, RankTask
from distrun.testing.warm import Server, warm_server

_GRACE_S = 5.0
"""After the first failure, the other ranks have this long to fail by themselves."""
_STACKS_S = 1.0
_ONE_AT_A_TIME = threading.Lock()
"""The server's answers belong to one run at a time."""


class _Rank:
    """One rank's process, as the caller sees it.

    Args:
        server: The server that forks it.
        plan: The pickled plan.
        rank: Its number.
        world_size: Number of ranks.
        folder: The directory of this run.
    """

    def __init__(
        self, server: Server, plan: bytes, rank: int, world_size: int, folder: Path
    ) -> None:
        self.rank = rank
        self.ended_s: float | None = None
        self.status = 0
        self._data = bytearray()
        self._output, self._stacks = folder / f"output{rank}", folder / f"stacks{rank}"
        order = folder / f"order{rank}"
        order.write_bytes(
            pickle.dumps(RankTask(plan, rank, str(folder / "store"), sys.path, str(Path.cwd())))
        )
        self.report, theirs = os.pipe()
        with (
            order.open("rb") as stdin,
            self._output.open("wb") as out,
            self._stacks.open("wb") as s,
        ):
            fds = [stdin.fileno(), out.fileno(), out.fileno(), theirs, s.fileno()]
            self.pid = server.fork(_environ(rank, world_size), fds)
        os.close(theirs)
        os.set_blocking(self.report, False)
        widen_pipe(self.report)

    def read(self) -> bool:
        """Read the available part of its report; return False at the end."""
        try:
            while more := os.read(self.report, 1 << 20):
                self._data += more
        except BlockingIOError:
            return True
        return False

    def outcome(self) -> Outcome:
        """Return its outcome; called at the end of its report."""
        try:
            # a child that it left behind may keep the pipe open: do not wait for the end
            self.read()
            outcome: Outcome = pickle.loads(self._data)
            return outcome
        except Exception:  # truncated, or a class that cannot be unpickled here
            return Outcome(
                None,
                RankFailure(
                    self.rank, self._how_it_ended(), self._last_lines(), self.ended_s or 0.0
                ),
            )

    def _how_it_ended(self) -> str:
        if os.WIFSIGNALED(self.status):
            return f"killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"ended with exit code {os.waitstatus_to_exitcode(self.status)}"

    def _last_lines(self) -> str:
        """Return the stacks of a crash, else the last lines that it printed."""
        lines = self._output.read_text(errors="replace").splitlines()[-20:]
        return self._stacks.read_text(errors="replace") or "\n".join(lines) or "(no output)"

    def stack(self) -> str:
        """Return the stack of the running process."""
        if STACKS:
            send(self.pid, STACKS)
            deadline = time.monotonic() + _STACKS_S
            while not self._stacks.stat().st_size and time.monotonic() < deadline:
                time.sleep(0.01)  # the pause is only between two polls
        return _own_stack(self._stacks.read_text(errors="replace")) or "(it wrote no stack)"

    def printed(self) -> str:
        """Return what it printed."""
        return self._output.read_text(errors="replace")


def run_in_processes(plan: RankPlan) -> list[Any]:
    """Run a plan on ranks that are processes; see `run_ranks`."""
    __tracebackhide__ = True
    if plan.backend == "nccl":
        _require_gpus(plan.world_size)
    order = _pickled(plan)
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory(prefix="distrun-") as name:
        server, ranks = warm_server(), list[_Rank]()
        try:
            for rank in range(plan.world_size):
                ranks.append(_Rank(server, order, rank, plan.world_size, Path(name)))
            return _collected(plan, server, ranks)
        finally:
            for each in ranks:
                if each.ended_s is None:
                    send(each.pid, signal.SIGKILL)
                os.close(each.report)
            for each in ranks:
                sys.stdout.write(prefixed(each.rank, each.printed()))


def _collected(plan: RankPlan, server: Server, ranks: list[_Rank]) -> list[Any]:
    __tracebackhide__ = True
    outcomes = _wait(plan, server, ranks)
    failures = [o.failure for o in outcomes.values() if o.failure is not None]
    running = [each for each in ranks if each.rank not in outcomes]
    failures += [still_running(each.rank, each.stack()) for each in running]
    if failures:
        raise_for(failures, plan.world_size, plan.timeout_s)
    return [_result(rank, outcomes[rank].result or b"") for rank in range(plan.world_size)]


def _result(rank: int, pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)
    except Exception as error:  # torch 2.13 cannot read back all of its own dtypes
        raise RunRanksError(
            f"run_ranks: what rank {rank} returned cannot be unpickled: {error}",
            "return x.tolist(), or x.float()",
        ) from error


def _wait(plan: RankPlan, server: Server, ranks: list[_Rank]) -> dict[int, Outcome]:
    """Wait for the ranks; return the outcomes of those that ended in time."""
    deadline = time.monotonic() + plan.timeout_s
    by_pid = {each.pid: each for each in ranks}
    outcomes: dict[int, Outcome] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(server.channel, selectors.EVENT_READ)
        for each in ranks:
            selector.register(each.report, selectors.EVENT_READ, each)
        while True:
            for ended in server.exits():  # some may have arrived with the answers to the forks
                if rank := by_pid.get(ended.pid):  # else it belongs to an earlier run
                    rank.ended_s, rank.status = ended.at_s, ended.status
                    outcomes[rank.rank] = rank.outcome()
            if any(outcome.failure for outcome in outcomes.values()):
                deadline = min(deadline, time.monotonic() + _GRACE_S)
            left_s = deadline - time.monotonic()
            if len(outcomes) == len(ranks) or left_s <= 0:
                return outcomes
            for key, _ in selector.select(left_s):
                if key.data is not None and not key.data.read():
                    selector.unregister(key.fd)


def _environ(rank: int, world_size: int) -> dict[str, str]:
    loopback = "lo" if sys.platform.startswith("linux") else "lo0"
    return {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": loopback,  # works offline, and with any hostname
        **scrubbed(os.environ),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }


def _own_stack(text: str) -> str:
    """Return faulthandler's output without distrun's frames and without threads of distrun."""
    threads = []
    for block in text.split("\n\n"):
        if not block.strip():
            continue
        _, *frames = block.splitlines()
        files = [frame.partition('"')[2].partition('"')[0] for frame in frames]
        own = [f for f, file in zip(frames, files, strict=True) if not is_own(file)]
        if own:
            threads.append(
                "\n".join(reversed(own))
            )  # faulthandler writes the most recent call first
    return "\n\n".join(threads)


def _pickled(plan: RankPlan) -> bytes:
    try:
        return pickled(plan, plan.fn)
    except Exception as error:  # an object's __reduce__ may raise anything
        raise RunRanksError(
            f"run_ranks: an object that the function uses cannot be pickled: {error}",
            'create it inside the function, or backend="threads"',
        ) from error


def _require_gpus(world_size: int) -> None:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < world_size:
        raise RunRanksError(
            f'run_ranks: backend="nccl" needs one GPU per rank, there are {gpus} GPUs for'
            f" {world_size} ranks",
            'backend="gloo"',
        )
