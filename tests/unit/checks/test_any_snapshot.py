"""Whatever a snapshot lacks, judging comes to an end, and says nothing worse of it."""

from __future__ import annotations

import dataclasses
import random
import types
import typing
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from distrun.checks.judge import judge
from distrun.checks.limits import Limits
from distrun.checks.rule import Severity, Workload
from distrun.probe import snapshot
from tests.unit.checks.bases import findings
from tests.unit.checks.cases import LAPTOP, NODE, NODES


@cache
def _optional(kind: type) -> tuple[str, ...]:
    """Return the fields of a dataclass that may be None."""
    hints = typing.get_type_hints(kind, vars(snapshot))
    unions = (typing.Union, types.UnionType)
    return tuple(
        name
        for name, hint in hints.items()
        if typing.get_origin(hint) in unions and type(None) in typing.get_args(hint)
    )


def _emptied(thing: Any, choose: Any, share: float) -> Any:
    """Return a copy in which some facts could not be read."""
    if isinstance(thing, tuple):
        kept = tuple(_emptied(part, choose, share) for part in thing)
        return () if kept and choose() < share / 8 else kept
    if not dataclasses.is_dataclass(thing):
        return thing
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(thing):
        if field.name in _optional(type(thing)) and choose() < share:
            changed[field.name] = None
        else:
            changed[field.name] = _emptied(getattr(thing, field.name), choose, share)
    lost = {name: "NotSupported" for name, value in changed.items() if value is None}
    if lost and choose() < 0.5:  # a reason may be wanting too
        changed["missing"] = lost if hasattr(thing, "missing") else {}
    if not hasattr(thing, "missing"):
        changed.pop("missing", None)
    return dataclasses.replace(thing, **changed)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([NODE, NODES[:2], NODES, LAPTOP]),
    st.integers(0, 2**32),
    st.sampled_from([0.02, 0.2, 0.6, 1.0]),
    st.builds(
        Workload,
        nproc_per_node=st.integers(1, 16),
        nnodes=st.integers(1, 4),
        uses_gpus=st.booleans(),
        master_port=st.none() | st.just(29500),
    ),
    st.booleans(),
)
def test_a_snapshot_with_holes_is_judged(
    base: tuple[snapshot.Node, ...], seed: int, share: float, job: Workload, quick: bool
) -> None:
    choose = random.Random(seed).random
    nodes = tuple(_emptied(node, choose, share) for node in base)
    found = judge(nodes, job, Limits(), quick=quick)
    assert all(f.observed and "None" not in f.observed + f.expected for f in found)
    skips = [(f.id, f.node) for f in found if f.severity is Severity.SKIP]
    assert len(skips) == len(set(skips))


def test_of_a_gpu_of_which_nothing_is_known_every_rule_that_asks_is_skipped() -> None:
    bare = snapshot.Gpu(0, missing=dict.fromkeys(_optional(snapshot.Gpu), "NotSupported"))
    node = dataclasses.replace(NODE[0], nvml=dataclasses.replace(NODE[0].nvml, gpus=(bare,)))
    found = [f for f in findings((node,)) if f.id.startswith("gpu.")]
    assert {f.severity for f in found} == {Severity.SKIP}
    assert {f.observed.partition(" ")[0] for f in found} == {"NotSupported"}
    assert len(found) > 20
