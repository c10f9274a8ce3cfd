"""The function that ranks run, and its limits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distrun.testing.failure import RunRanksError
from distrun.testing.faults import Fault

if TYPE_CHECKING:
    from distrun.comm.world import World


@dataclass(frozen=True)
class RankPlan:
    """One run of a function on several ranks."""

    fn: Callable[[World], Any]
    world_size: int
    backend: str
    timeout_s: float
    """Timeout of the whole run."""
    comm_timeout_s: float
    """Timeout of one collective."""
    check: bool
    faults: Sequence[Fault] = ()

    def run(self, world: World) -> Any:
        """Run the function on one rank, with its faults injected."""
        with ExitStack() as stack:
            for fault in self.faults:
                stack.enter_context(fault.on(world))
            return run_to_its_end(self.fn, world)


def run_to_its_end(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a function returns; refuse a result that only runs when awaited or iterated.

    Raises:
        RunRanksError: It returned a coroutine or a generator, so its body did not run.
    """
    result = fn(*args, **kwargs)
    lazy = inspect.isawaitable(result) or inspect.isasyncgen(result) or inspect.isgenerator(result)
    if not lazy:
        return result
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody awaited it
    raise RunRanksError(
        f"the function of the ranks returned a {type(result).__name__}, so its body did not run",
        "make it a plain function; asyncio.run(…) inside it runs a coroutine",
    )
