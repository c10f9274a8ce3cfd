"""The one error of a run on several ranks, with every rank's traceback or stack."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from distrun.errors import DistrunError, ShowsItsHint, UsageError
from distrun.frames import is_distrun


@dataclass(frozen=True)
class RankFailure:
    """How one rank ended, or where it was when the others had."""

    rank: int
    what: str
    """`ValueError: no`, `killed by SIGKILL`, or `still running`."""
    trace: str
    """Its traceback; of a rank that was still running, the stacks of its threads."""
    at_s: float
    """When, on a monotonic clock that the ranks share; infinite if it was still running."""
    error: BaseException | None = None
    """The exception itself, where it could be brought here."""
    follows: bool = False
    """It only says that another rank was lost."""


class RunRanksError(ShowsItsHint, UsageError):
    """`run_ranks` was asked for what it cannot do."""


class RanksFailed(DistrunError):
    """At least one rank raised, was killed, or did not come to an end.

    Args:
        failures: Of the ranks that failed, in any order.
        world_size: Ranks in all.
    """

    def __init__(self, failures: Sequence[RankFailure], world_size: int) -> None:
        self.failures = sorted(failures, key=_order)
        """The first failure first; those that only tell of another come after the others."""
        self.world_size = world_size
        super().__init__(self._headline())

    @property
    def first(self) -> RankFailure:
        """The failure that came first; the others may follow from it."""
        return self.failures[0]

    def _headline(self) -> str:
        return (
            f"{self.first.what} (rank {self.first.rank} was the first;"
            f" {len(self.failures)} of {self.world_size} rank{'s' * (self.world_size != 1)} failed)"
        )

    def __str__(self) -> str:
        return "\n".join([self.message, *map(self._section, self._alike())])

    def _alike(self) -> list[list[RankFailure]]:
        """Return the failures, those with the same trace together."""
        groups: dict[str, list[RankFailure]] = {}
        for failure in self.failures:
            groups.setdefault(failure.trace, []).append(failure)
        return list(groups.values())

    def _section(self, alike: Sequence[RankFailure]) -> str:
        head = alike[0]
        names = ", ".join(str(failure.rank) for failure in sorted(alike, key=lambda f: f.rank))
        title = f"rank{'s' if len(alike) > 1 else ''} {names}"
        if head is not self.first and head.at_s != float("inf"):
            title += f", {max(0, 1000 * (head.at_s - self.first.at_s)):.0f} ms after the first"
        return f"\n--- {title}: {head.what.splitlines()[0]} ---\n{head.trace.rstrip()}"


def _order(failure: RankFailure) -> tuple[bool, bool, float, int]:
    running = failure.at_s == float("inf")
    return running, failure.follows, failure.at_s, failure.rank


class RanksTimedOut(RanksFailed, TimeoutError):
    """The ranks were not done within the timeout."""

    def __init__(self, failures: Sequence[RankFailure], world_size: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(failures, world_size)

    def _headline(self) -> str:
        running = [f.rank for f in self.failures if f.at_s == float("inf")]
        return (
            f"{len(running)} of {self.world_size} ranks were not done after {self.timeout_s:g} s:"
            f" {', '.join(map(str, sorted(running)))}; this is where they were"
        )


def failure_of(rank: int, error: BaseException) -> RankFailure:
    """Return what an exception says of a rank, without distrun's own frames."""
    text = str(error)
    return RankFailure(
        rank,
        f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__,
        "".join(_shortened(traceback.TracebackException.from_exception(error)).format()),
        time.monotonic(),
        error,
        getattr(error, "follows", False),
    )


def _shortened(error: traceback.TracebackException) -> traceback.TracebackException:
    """Take distrun's frames out of a traceback and of those it came from."""
    kept = without_own(error.stack)
    if kept:  # else the fault is distrun's, and its frames are all there is
        error.stack[:] = kept
    for before in (error.__cause__, error.__context__):
        if before is not None:
            _shortened(before)
    return error


def without_own(stack: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Return the frames that are neither distrun's nor those that begin a thread."""
    return [frame for frame in stack if not is_own(frame.filename)]


def is_own(file: str) -> bool:
    """Say whether a frame of this file is distrun's, or begins a thread."""
    return is_distrun(file) or file.startswith(("<string>", threading.__file__))


def still_running(rank: int, stack: str) -> RankFailure:
    """Return what is said of a rank that did not come to an end."""
    return RankFailure(rank, "still running", stack, float("inf"))


def ending(failure: RankFailure | None) -> str:
    """Return how a rank's function ended, for the ranks that wait for it."""
    return f"it raised {failure.what}" if failure else "its function has returned"


def raise_for(failures: Sequence[RankFailure], world_size: int, timeout_s: float) -> NoReturn:
    """Raise the one error for a run. It shows the ranks' own errors, and so has no cause."""
    __tracebackhide__ = True  # pytest then shows the caller's frames alone
    if all(failure.at_s == float("inf") for failure in failures):
        raise RanksTimedOut(failures, world_size, timeout_s) from None
    raise RanksFailed(failures, world_size) from None
