"""`run_ranks`: runs a function on several ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from distrun.testing.failure import RunRanksError
from distrun.testing.faults import Fault
from distrun.testing.plan import RankPlan

if TYPE_CHECKING:
    from distrun.comm.world import World

T = TypeVar("T")
BACKENDS = ("threads", "gloo", "nccl")
MAX_RANKS = 256
LONGEST_S = 86400.0 * 365


def run_ranks(
    fn: Callable[[World], T],
    world_size: int = 2,
    backend: str = "threads",
    timeout_s: float = 60.0,
    *,
    comm_timeout_s: float | None = None,
    check: bool = True,
    faults: Sequence[Fault] = (),
) -> list[T]:
    """Run `fn(world)` on several ranks, and return what it returns, in rank order.

    Args:
        fn: Called on every rank with its `distrun.comm.World`, which is closed afterwards. For
            processes it is pickled by value, with what it refers to; lambdas and inner functions
            work too.
        world_size: Number of ranks.
        backend: "threads": in this process, one at a time, in the same order every time; for
            functions that use `world` alone: modules and their variables are shared, and there
            is no RANK in the environment and no torch.distributed. "gloo", "nccl": real
            processes, forked from one that has imported torch and is kept for the next call;
            torch.distributed is set up.
        timeout_s: Of the whole run. It is suspended in pdb (threads).
        comm_timeout_s: Timeout of one collective; None: longer than the run, so that a hang shows
            every rank's stack.
        check: Compare every call between the ranks first (`distrun.comm`'s checked mode).
        faults: Faults of `distrun.testing.faults` to inject.

    Output of ranks is printed with the rank before each line; that of processes at the end.

    Returns:
        The results, in rank order. What processes return must be picklable.

    Raises:
        RanksFailed: A rank raised or was killed; shows every rank's traceback, the first failure
            first.
        RanksTimedOut: The ranks did not finish in time; shows every rank's stack.
        RunRanksError: An argument is invalid, or there are too few GPUs.
    """
    __tracebackhide__ = True
    if not isinstance(world_size, int) or not 1 <= world_size <= MAX_RANKS:
        raise RunRanksError(
            f"run_ranks: world_size={world_size!r} is outside the range from 1 to {MAX_RANKS}"
        )
    if backend not in BACKENDS:
        raise RunRanksError(f"run_ranks: backend={backend!r} is not one of {', '.join(BACKENDS)}")
    for name, seconds in (("timeout_s", timeout_s), ("comm_timeout_s", comm_timeout_s)):
        if seconds is not None and not 0 < seconds < LONGEST_S:
            raise RunRanksError(
                f"run_ranks: {name}={seconds} is not a time above 0 s and below {LONGEST_S:.0f} s"
            )
    for fault in faults:
        if not 0 <= fault.rank < world_size:
            raise RunRanksError(
                f"run_ranks: a fault is for rank {fault.rank}, the ranks are 0 to {world_size - 1}"
            )
    limit_s = timeout_s + 5 if comm_timeout_s is None else comm_timeout_s
    plan = RankPlan(fn, world_size, backend, timeout_s, limit_s, check, tuple(faults))
    # Both import torch, which a test session without ranks does not need.
    if backend == "threads":
        from distrun.testing.threads import run_on_threads

        return run_on_threads(plan)
    from distrun.testing.processes import run_in_processes

    return run_in_processes(plan)


def warm_up() -> None:
    """Start the server that ranks are forked from, before its first use would start it."""
    from distrun.testing.warm import warm_server

    warm_server()
