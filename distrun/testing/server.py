"""The server: it has imported torch once, and every rank of a test is forked from it.

It is the agent's forkserver with another program: a rank reads its task from its standard input and
writes its outcome to its report pipe.
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cloudpickle
import torch
import torch.distributed
import torch.distributed.nn

import distrun.comm
from distrun import env
from distrun.agent.forkserver import Forkserver
from distrun.comm.errors import CommError
from distrun.testing.by_value import unpickled
from distrun.testing.failure import RankFailure, ending, failure_of


class RankTask(NamedTuple):
    """The task of one rank."""

    plan: bytes
    """A `RankPlan`, pickled by value."""
    rank: int
    store: str
    """The file of the ranks' FileStore."""
    path: list[str]
    """sys.path of the caller."""
    cwd: str


class Outcome(NamedTuple):
    """The outcome of a task."""

    result: bytes | None
    """Pickled; None if the rank failed."""
    failure: RankFailure | None


def main(channel_fd: int, modules: Sequence[str]) -> None:
    """Fork ranks for the process at the other end of the channel; the forked ranks run on here.

    Args:
        channel_fd: The channel.
        modules: What the ranks have imported, besides torch.
    """
    for name in modules:
        importlib.import_module(name)
    Forkserver(socket.socket(fileno=channel_fd), warm=True).serve()
    report_fd = env.report_fd()
    assert report_fd is not None  # the forkserver has set it
    with os.fdopen(0, "rb", closefd=False) as order:
        task = pickle.load(order)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    outcome = _be_rank(task)
    with os.fdopen(os.dup(report_fd), "wb") as report:
        report.write(_portable(outcome))


def _be_rank(task: RankTask) -> Outcome:
    sys.path[:] = task.path
    sys.breakpointhook = _no_debugger
    failure, result, world = None, None, None
    errors_of_threads = _note_errors_of_threads()
    try:
        os.chdir(task.cwd)
        plan = unpickled(task.plan)
        world = _world(plan, task)
        result = cloudpickle.dumps(plan.run(world))
        if errors_of_threads:
            raise min(errors_of_threads, key=lambda error: error.follows)
    except BaseException as error:  # the caller must see any exception
        failure = failure_of(task.rank, error)
    if world is not None:
        world.close(failed=failure is not None, why=ending(failure))
    return Outcome(None if failure else result, failure)


def _note_errors_of_threads() -> list[CommError]:
    """Return a list that collects the collectives' errors that end a thread."""
    noted: list[CommError] = []
    show = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        show(args)
        if isinstance(args.exc_value, CommError):
            noted.append(args.exc_value)

    threading.excepthook = hook
    return noted


def _world(plan: Any, task: RankTask) -> distrun.comm.World:
    from distrun.comm.setup import WORLD_WAS_GIVEN, Settings, join

    WORLD_WAS_GIVEN.set(True)
    on_gpu = plan.backend == "nccl"
    device = torch.device("cuda", task.rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    store = torch.distributed.FileStore(  # type: ignore[attr-defined] # public all the same
        task.store, plan.world_size
    )
    settings = Settings(plan.backend, device, plan.comm_timeout_s, plan.check)
    return join(store, env.TorchrunEnv.read(), settings)


def _portable(outcome: Outcome) -> bytes:
    """Pickle an outcome; an exception that cannot be pickled is left out."""
    if outcome.failure is not None:
        try:
            pickle.loads(cloudpickle.dumps(outcome.failure))
        except Exception:  # an exception's __reduce__ may raise anything
            outcome = Outcome(None, replace(outcome.failure, error=None))
    return bytes(cloudpickle.dumps(outcome))


def _no_debugger(*_: object, **__: object) -> None:
    raise RuntimeError(
        'breakpoint() in a rank that is a process has no terminal: backend="threads" has one'
    )
