"""The allocations of a trace as a list, and what is read from it: peaks and reserved bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from distrun.estimate.allocator import Event, reserved_nbytes
from distrun.estimate.work import Kind, Peak, Phase

PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")


class Entry(NamedTuple):
    """An allocation, or the end of one, and when it was."""

    block: int
    nbytes: int
    """0: the block is freed here."""
    phase: Phase


class Ledger:
    """What was allocated and freed, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.kinds: dict[int, Kind] = {}
        """Block -> what it is, where that is known."""
        self.saved: set[int] = set()
        """Blocks made by a forward pass, first or recomputed."""
        self.hosted: set[int] = set()
        """Blocks that stay in the memory of the host."""
        self.streams: dict[int, str] = {}
        """Block -> its CUDA stream, if it is not the main one."""
        self.ready = 0
        """Entries before this one belong to the making of the model."""
        self.begin = 0
        """The first entry of the step that counts."""
        self.closed = False
        """The step is over: what is freed with the script itself is not noted."""

    def note(self, block: int, nbytes: int, phase: Phase) -> None:
        """Note an allocation, or the end of one."""
        if not self.closed:
            self.entries.append(Entry(block, nbytes, phase))

    def peaks(self) -> tuple[Peak, ...]:
        """Return the moment of each phase of the step when most bytes are live."""
        most: dict[Phase, dict[Kind, int]] = {}
        for phase, _, live in self.moments():
            if sum(live.values()) > sum(most.get(phase, {}).values()):
                most[phase] = live
        return tuple(
            Peak(phase, {kind: n for kind, n in sorted(most[phase].items()) if n})
            for phase in PHASES
            if phase in most
        )

    def moments(self) -> Iterator[tuple[Phase, int, dict[Kind, int]]]:
        """Yield phase and bytes of each change in the step, and what is live behind it."""
        lasting = self._outlive_forward()
        live: Counter[Kind] = Counter()
        size: dict[int, int] = {}
        for number, (block, nbytes, phase) in enumerate(self.entries):
            if block in self.hosted:
                continue
            change = nbytes - size.get(block, 0)
            live[self._kind(block, lasting)] += change
            size[block] = nbytes
            if number >= self.begin:
                yield phase, change, dict(live)

    def _kind(self, block: int, lasting: set[int]) -> Kind:
        if block in self.kinds:
            return self.kinds[block]
        return "activations" if block in lasting else "temporary"

    def _outlive_forward(self) -> set[int]:
        """Return the blocks of forward passes that backward finds, and those it recomputes."""
        found: set[int] = set()
        fresh: set[int] = set()
        for block, nbytes, phase in self.entries:
            if phase == "backward":
                found |= fresh
                fresh.clear()
                if nbytes and block in self.saved:
                    found.add(block)
            elif not nbytes:
                fresh.discard(block)
            elif block in self.saved:
                fresh.add(block)
        return found

    def reserved_nbytes(self) -> int:
        """Return what the caching allocator holds after the steps."""
        return reserved_nbytes(self._events())

    def _events(self) -> Iterator[Event]:
        """Yield what a GPU's allocator sees: of the making of the model only what has stayed."""
        made: Mapping[int, int] = {
            block: nbytes for block, nbytes, _ in self.entries[: self.ready] if nbytes
        }
        gone = {block for block, nbytes, _ in self.entries[: self.ready] if not nbytes}
        gone |= self.hosted
        for block, nbytes in made.items():
            if block not in gone:
                yield Event(block, nbytes, self.streams.get(block, "main"))
        for block, nbytes, _ in self.entries[self.ready :]:
            if block not in gone:
                yield Event(block, nbytes, self.streams.get(block, "main"))
