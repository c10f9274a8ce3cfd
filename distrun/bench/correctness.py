"""Compares a row's result with the known right result."""

from __future__ import annotations

from dataclasses import dataclass

from distrun.bench import values
from distrun.bench.operations import Operation
from distrun.comm import World


@dataclass(frozen=True)
class Wrong:
    """The wrong elements of one rank."""

    rank: int
    count: int
    first_index: int
    source: int | None
    """The rank that the first one came from; None: from all ranks."""


def wrong_elements(operation: Operation, control: World) -> list[Wrong]:
    """Run one iteration on new input, and return the wrong elements of each rank."""
    operation.reset()
    control.barrier()
    operation.start()()
    found: list[Wrong | None] = control.all_gather_object(_wrong_here(operation))
    return [wrong for wrong in found if wrong is not None]


def _wrong_here(operation: Operation) -> Wrong | None:
    expected = operation.expected()
    if expected is None:
        return None
    wanted = operation.wanted
    allowed = 0.0
    if operation.reduces:
        allowed = values.tolerance(wanted.dtype, wanted.redop, operation.n)
    if allowed:
        bad = (operation.out - expected).abs() > allowed * expected.abs()
        bad |= operation.out.isnan()
    else:
        bad = operation.out != expected
    indices = bad.nonzero()
    if not len(indices):
        return None
    first = int(indices[0])
    return Wrong(operation.world.rank, len(indices), first, operation.source(first))
