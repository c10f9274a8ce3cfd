"""The allocations of one step in their order, and the live bytes at any moment of it."""

from __future__ import annotations

from distrun.estimate.allocator import ROUNDING_NBYTES, Event
from distrun.estimate.work import Kind, Peak, Phase


class Tape:
    """Records allocations; knows the peak of each phase."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.live = 0
        self._phase: Phase = "forward"
        self._blocks: dict[int, tuple[Kind, int]] = {}
        self._by_kind: dict[Kind, int] = {}
        self._peaks: dict[Phase, tuple[int, dict[Kind, int]]] = {}

    def begin(self, phase: Phase) -> None:
        """Say that what follows belongs to a phase."""
        self._phase = phase
        self._see()

    def take(self, kind: Kind, nbytes: float, stream: str = "main") -> int:
        """Allocate; return the name to give it back by. Streams have pools of their own."""
        rounded = max(1, -(-int(nbytes) // ROUNDING_NBYTES)) * ROUNDING_NBYTES
        name = len(self.events)
        self.events.append(Event(name, rounded, stream))
        self._blocks[name] = kind, rounded
        self._add(kind, rounded)
        self._see()
        return name

    def give(self, *names: int) -> None:
        """Give back what `take` has named."""
        for name in names:
            kind, nbytes = self._blocks.pop(name)
            self.events.append(Event(name, 0))
            self._add(kind, -nbytes)

    def peaks(self) -> tuple[Peak, ...]:
        """Return the peak of each phase that took place."""
        return tuple(Peak(phase, kinds) for phase, (_, kinds) in self._peaks.items())

    def _add(self, kind: Kind, nbytes: int) -> None:
        self.live += nbytes
        self._by_kind[kind] = self._by_kind.get(kind, 0) + nbytes

    def _see(self) -> None:
        before = self._peaks.get(self._phase)
        if before is None or self.live > before[0]:
            self._peaks[self._phase] = self.live, dict(self._by_kind)
