"""The error of a run on several ranks, with every rank's traceback or stack."""

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
    """How one rank ended, or where it was when the others had ended."""

    rank: int
    what: str
    """`ValueError: no`, `killed by SIGKILL`, or `still running`."""
    trace: str
    """Its traceback; of a rank that was still running, the stacks of its threads."""
    at_s: float
    """Time of the failure on a monotonic clock that the ranks share; infinite if still running."""
    error: BaseException | None = None
    """The exception itself, if it could be unpickled here."""
    follows: bool = False
    """The error only reports that another rank was lost."""


class RunRanksError(ShowsItsHint, UsageError):
    """`run_ranks` was asked for what it cannot do."""


class RanksFailed(DistrunError):
    """At least one rank raised, was killed, or did not end.

    Args:
        failures: One per rank that failed, in any order.
        world_size: Number of ranks.
    """

    def __init__(self, failures: Sequence[RankFailure], world_size: int) -> None:
        self.failures = sorted(failures, key=_order)
        """In order of time, but those that only report another rank's loss come last."""
        self.world_size = world_size
        super().__init__(self._headline())

    @property
    def first(self) -> RankFailure:
        """The first failure; the others may be its consequences."""
        return self.failures[0]

    def _headline(self) -> str:
        return (
            f"{self.first.what} (rank {self.first.rank} was the first;"
            f" {len(self.failures)} of {self.world_size} rank{'s' * (self.world_size != 1)} failed)"
        )

    def __str__(self) -> str:
        return "\n".join([self.message, *map(self._section, self._alike())])

    def _alike(self) -> list[list[RankFailure]]:
        """Return the failures, grouped by trace."""
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
    """Some ranks did not finish within the timeout."""

    def __init__(self, failures: Sequence[RankFailure], world_size: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(failures, world_size)

    def _headline(self) -> str:
        running = [f.rank for f in self.failures if f.at_s == float("inf")]
        return (
            f"{len(running)} of {self.world_size} ranks did not finish within {self.timeout_s:g} s:"
            f" {', '.join(map(str, sorted(running)))}; this is where they were"
        )


def failure_of(rank: int, error: BaseException) -> RankFailure:
    """Return the failure of a rank from its exception, without distrun's own frames."""
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
    """Remove distrun's frames from a traceback, its causes and its contexts."""
    kept = without_own(error.stack)
    if kept:  # else the error is distrun's own, and there are no other frames
        error.stack[:] = kept
    for before in (error.__cause__, error.__context__):
        if before is not None:
            _shortened(before)
    return error


def without_own(stack: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Return the frames that are neither distrun's nor the start of a thread."""
    return [frame for frame in stack if not is_own(frame.filename)]


def is_own(file: str) -> bool:
    """Return whether a frame of this file is distrun's, or the start of a thread."""
    return is_distrun(file) or file.startswith(("<string>", threading.__file__))


def still_running(rank: int, stack: str) -> RankFailure:
    """Return the failure of a rank that did not end."""
    return RankFailure(rank, "still running", stack, float("inf"))


def ending(failure: RankFailure | None) -> str:
    """Return how a rank's function ended, for ranks that wait for this rank."""
    return f"it raised {failure.what}" if failure else "its function has returned"


def raise_for(failures: Sequence[RankFailure], world_size: int, timeout_s: float) -> NoReturn:
    """Raise the error of a run. It shows the ranks' own errors, so it has no cause."""
    __tracebackhide__ = True  # pytest then shows the caller's frames alone
    if all(failure.at_s == float("inf") for failure in failures):
        raise RanksTimedOut(failures, world_size, timeout_s) from None
    raise RanksFailed(failures, world_size) from None
