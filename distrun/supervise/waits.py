"""For how long ranks wait for one another while a run is well: from the times of their calls.

In a collective each rank waits until the last one has called it. Each look at the ranks tells the
times of their last calls; a part of all calls is seen so, a window a look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from typing import Any

from distrun.diagnose.hang.evidence import Group

_Key = tuple[str, tuple[int, ...], int]
"""A group's name and ranks, and the number of a call in it."""
_LEAST_CALLS = 5
"""In a window; with fewer it tells nothing."""
_MOST_CALLS, _MOST_LAST = 1 << 14, 1 << 16
_MOST_WINDOWS = 64


@dataclass
class _Window:
    """The calls between two looks that all ranks of their groups have made."""

    waited_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """By rank."""
    ncalls: int = 0
    first_s: float = float("inf")
    last_s: float = float("-inf")

    def add(self, times_s: Mapping[int, float]) -> None:
        """Add the times at which the ranks of a group have made one call."""
        first_s, last_s = min(times_s.values()), max(times_s.values())
        for rank, at_s in times_s.items():
            self.waited_s[rank] += last_s - at_s
        self.ncalls += 1
        self.first_s, self.last_s = min(self.first_s, first_s), max(self.last_s, last_s)

    @property
    def length_s(self) -> float:
        return self.last_s - self.first_s


class Waits:
    """What the looks at the ranks of one attempt tell."""

    def __init__(self) -> None:
        self._calls: dict[_Key, dict[int, float]] = {}
        """Those that not all ranks of their group have told yet."""
        self._last: dict[tuple[int, str, tuple[int, ...]], int] = {}
        """The number of the last call of each rank in each group."""
        self._window = _Window()
        self._windows: list[_Window] = []
        self._every, self._seen = 1, 0

    def looked(
        self, rank: int, groups: Mapping[str, Group], calls: object, offset_s: float
    ) -> None:
        """Note the calls that a rank has made since the last look.

        Args:
            rank: The rank.
            groups: Its groups, by name.
            calls: `[group, number, seconds]` each, as its agent tells them.
            offset_s: What to add to the seconds, to compare them with those of other nodes.
        """
        for name, seq, at_s in _calls(calls):
            if (group := groups.get(name)) is None or len(group.ranks) < 2:
                continue
            if seq <= self._last.get((rank, name, group.ranks), 0):
                continue  # the look before told it too
            self._last[rank, name, group.ranks] = seq
            times_s = self._calls.setdefault((name, group.ranks, seq), {})
            times_s[rank] = at_s + offset_s
            if len(times_s) == len(group.ranks):
                self._window.add(self._calls.pop((name, group.ranks, seq)))
        while len(self._calls) > _MOST_CALLS:
            del self._calls[next(iter(self._calls))]
        if len(self._last) > _MOST_LAST:  # a script that makes and destroys groups
            self._last.clear()

    def next_window(self) -> None:
        """Begin a window: the ranks are looked at again."""
        window, self._window = self._window, _Window()
        if window.ncalls < _LEAST_CALLS or window.length_s <= 0:
            return
        if self._seen % self._every == 0:
            self._windows.append(window)
        self._seen += 1
        if len(self._windows) == _MOST_WINDOWS:  # of a long run, fewer of each hour
            del self._windows[1::2]
            self._every *= 2

    def told(self) -> dict[str, Any] | None:
        """Return for which share of the time each rank has waited; None if that is not known."""
        self.next_window()
        shares: dict[int, list[float]] = defaultdict(list)
        for window in self._windows:
            for rank, waited_s in window.waited_s.items():
                shares[rank].append(waited_s / window.length_s)
        if not shares:
            return None
        return {
            "calls": sum(window.ncalls for window in self._windows),
            "windows": len(self._windows),
            # The median: to the first call, some ranks come minutes after the others.
            "share": {str(rank): round(median(own), 4) for rank, own in sorted(shares.items())},
        }


def _calls(told: object) -> Iterator[tuple[str, int, float]]:
    for call in told if isinstance(told, list) else ():
        if isinstance(call, list) and [*map(type, call)] == [str, int, float] and isfinite(call[2]):
            yield call[0], call[1], call[2]
