"""Runs a function on ranks that are threads of this process."""

from __future__ import annotations

import contextvars
import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

from distrun.comm.checked.checker import BoardChecker
from distrun.comm.errors import CommUsageError
from distrun.comm.setup import WORLD_WAS_GIVEN
from distrun.comm.world import World
from distrun.testing.failure import (
    RankFailure,
    ending,
    failure_of,
    raise_for,
    still_running,
    without_own,
)
from distrun.testing.output import RankStream
from distrun.testing.plan import RankPlan
from distrun.testing.random_state import RandomState, states_of_ranks
from distrun.testing.thread_board import ThreadBoard
from distrun.testing.thread_hub import Hub
from distrun.testing.thread_transport import ThreadTransport
from distrun.testing.turns import Aborted, Turns, in_debugger

_LOOK_S = 0.5
_ONE_AT_A_TIME = threading.Lock()
"""A run replaces sys.stdout and the state of the random number generators: one at a time."""
_GRACE_S = 2.0
"""After the first failure, the other ranks have this long to fail by themselves."""


class _Run:
    """One run: its threads, their results and failures."""

    def __init__(self, plan: RankPlan) -> None:
        self.plan = plan
        self.results: list[Any] = [None] * plan.world_size
        self.failures: dict[int, RankFailure] = {}
        self.idents: dict[int, int] = {}
        self.ranks: dict[int, int] = {}
        self._states = states_of_ranks(plan.world_size)
        self.turns = Turns(plan.world_size, self._switch)
        self._hub = Hub(self.turns)
        self._ended = threading.Condition()
        self._left = set(range(plan.world_size))
        self.threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(self._rank, rank),
                name=f"rank {rank}",
                daemon=True,
            )
            for rank in range(plan.world_size)
        ]

    def _switch(self, before: int, after: int) -> None:
        """Give each rank its own random numbers, as a process has."""
        self._states[before] = RandomState.now()
        self._states[after].restore()

    def begin(self) -> None:
        """Start the ranks; rank 0 is the first to run."""
        self._states[0].restore()
        for thread in self.threads:
            thread.start()

    def _rank(self, rank: int) -> None:
        WORLD_WAS_GIVEN.set(True)
        self.ranks[threading.get_ident()] = rank
        self.idents[rank] = threading.get_ident()
        world = None
        try:
            self.turns.begin(rank)
            world = self._world(range(self.plan.world_size), rank)
            self.results[rank] = self.plan.run(world)
        except Aborted:
            pass
        except BaseException as error:  # the caller must see any exception
            self.failures[rank] = failure_of(rank, error)
        finally:
            if world is not None:
                world.close(failed=rank in self.failures, why=ending(self.failures.get(rank)))
            self.turns.end(rank)
            with self._ended:
                self._left.discard(rank)
                self._ended.notify()

    def _world(self, members: Sequence[int], rank: int, generation: int = 0) -> World:
        """Return the world of `members`, for the one at index `rank`."""
        timeout_s = self.plan.comm_timeout_s
        key = "world", generation, tuple(members)
        transport = ThreadTransport(self._hub, key, members, rank, timeout_s)

        def again(ranks: Sequence[int], _: float | None) -> World:
            left = [members[r] for r in ranks]
            return self._world(left, list(ranks).index(rank), generation + 1)

        return World(transport, members[rank], "the world", self._checker, again)

    def _checker(self, group: World) -> BoardChecker | None:
        if not self.plan.check:
            return None
        carrier = cast(ThreadTransport, group.transport.wrapped)
        board = ThreadBoard(carrier.exchanges, group.rank, self.idents)
        return BoardChecker(board, group.name, self.plan.comm_timeout_s)

    def wait(self) -> None:
        """Wait for every rank; end those that hang."""
        deadline = time.monotonic() + self.plan.timeout_s
        with self._ended:
            while self._left:
                self._ended.wait(min(_LOOK_S, max(0, deadline - time.monotonic())))
                if self.failures and self._left:
                    deadline = min(deadline, time.monotonic() + _GRACE_S)
                if in_debugger():
                    deadline = time.monotonic() + self.plan.timeout_s
                if time.monotonic() >= deadline:
                    return

    def stop(self) -> dict[int, str]:
        """End the ranks that have not ended; return where each of them was."""
        left = sorted(self._left)
        for rank, thread in enumerate(self.threads):
            if rank not in left:
                thread.join()  # it has reported its end, and takes a moment to exit
        frames = sys._current_frames()
        stacks = {rank: _stack(frames.get(cast(int, self.threads[rank].ident))) for rank in left}
        self.turns.abort()
        for rank in stacks:  # one that does not wait ends at its next line of Python
            ident = ctypes.c_ulong(self.idents.get(rank, 0))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Aborted))
        return stacks


def run_on_threads(plan: RankPlan) -> list[Any]:
    """Run a plan on threads; see `run_ranks`."""
    __tracebackhide__ = True
    if WORLD_WAS_GIVEN.get():
        raise CommUsageError("run_ranks: this is already a rank of another run_ranks")
    with _ONE_AT_A_TIME:
        return _run(plan)


def _run(plan: RankPlan) -> list[Any]:
    __tracebackhide__ = True
    run = _Run(plan)
    state = RandomState.now()
    stacks: dict[int, str] = {}
    try:
        with _output_of(run.ranks):
            run.begin()
            run.wait()
    finally:
        stacks = run.stop()
        state.restore()
    if stacks or run.failures:
        running = [still_running(rank, stack) for rank, stack in stacks.items()]
        raise_for([*run.failures.values(), *running], plan.world_size, plan.timeout_s)
    return run.results


def _stack(frame: FrameType | None) -> str:
    kept = without_own(traceback.extract_stack(frame)) if frame else []
    return "".join(traceback.format_list(kept)) or "(it has not run yet)"


@contextmanager
def _output_of(ranks: dict[int, int]) -> Iterator[None]:
    streams = RankStream(sys.stdout, ranks), RankStream(sys.stderr, ranks)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.finish()
        sys.stdout, sys.stderr = before
