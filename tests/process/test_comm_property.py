"""Random programs of collectives mean what NumPy says they mean, on threads and on gloo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from distrun.comm import Handle, World
from distrun.testing import run_ranks
from tests.process import comm_model
from tests.process.comm_model import (
    DTYPES,
    MOVING,
    REDUCING,
    Array,
    Step,
    difference,
    inputs,
    ops_of,
)

pytestmark = pytest.mark.usefixtures("warm_ranks")
Program = tuple[Step, ...]
Got = list[tuple[Array | None, bool]]
"""What a rank gets of each step, and whether its input is as it has to be afterwards."""
GLOO_RANKS, GLOO_PROGRAMS = 3, 150
LAYOUTS = ("plain", "plain", "strided", "transposed", "offset", "expanded")
CUT = ("reduce_scatter", "scatter", "all_to_all")
STEADY = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# --- drawing --------------------------------------------------------------------------


@st.composite
def steps(draw: st.DrawFn, n: int) -> Step:
    """Draw one collective of n ranks."""
    kind = draw(st.sampled_from(REDUCING + (MOVING if n > 1 else MOVING[:-1])))
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), min_size=kind in CUT, max_size=3))
    # a scalar has dims only where it counts as one row
    dims = len(shape) or 1
    dim = draw(st.integers(-dims, dims - 1))
    shapes, sizes = [tuple(shape)] * n, None
    if kind in CUT:
        shapes, sizes = draw(cuts(kind, shape, dim, n))
    elif kind in ("all_gather", "gather") and shape and draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        shapes = [with_length(shape, dim, length) for length in lengths]
        if kind == "all_gather" and draw(st.booleans()):
            sizes = (tuple(lengths),) * n
    return Step(
        kind,
        dtype,
        draw(st.sampled_from(ops_of(dtype))),
        tuple(shapes),
        dim,
        draw(st.integers(0, n - 1)),
        sizes,
        tuple(draw(st.lists(st.sampled_from(LAYOUTS), min_size=n, max_size=n))),
        draw(st.sampled_from(("new", "other", "x"))),
        draw(st.booleans()),
        draw(st.integers(0, 2**16)),
    )


@st.composite
def cuts(draw: st.DrawFn, kind: str, shape: list[int], dim: int, n: int) -> Any:
    """Draw shapes that can be cut into a part a rank, and the sizes that are said of them."""
    if draw(st.booleans()):
        return [with_length(shape, dim, n * (shape[dim] % 3))] * n, None
    row = st.lists(st.integers(0, 3), min_size=n, max_size=n).map(tuple)
    sizes = draw(st.lists(row, min_size=n, max_size=n))
    if kind != "all_to_all":  # all say the same
        sizes = sizes[:1] * n
    return [with_length(shape, dim, sum(each)) for each in sizes], tuple(sizes)


def with_length(shape: list[int], dim: int, length: int) -> tuple[int, ...]:
    dim %= len(shape)
    return (*shape[:dim], length, *shape[dim + 1 :])


def programs(n: int) -> st.SearchStrategy[Program]:
    return st.lists(steps(n), min_size=1, max_size=8).map(tuple)


# --- running --------------------------------------------------------------------------


def as_torch(x: Array, dtype: str, layout: str) -> Tensor:
    """Return a tensor of these values that lies in memory as told."""
    plain = torch.from_numpy(x.copy()).to(getattr(torch, dtype))
    if layout == "strided" and x.ndim:
        memory = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 1, dtype=plain.dtype)
        memory[..., 1::2] = plain
        return memory[..., 1::2]
    if layout == "transposed" and x.ndim > 1:
        return plain.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "offset" and x.ndim:
        return torch.cat([torch.zeros(1, *x.shape[1:], dtype=plain.dtype), plain])[1:]
    if layout == "expanded" and x.ndim and x.shape[0]:
        return plain[:1].expand(plain.shape)
    return plain


def as_numpy(x: Tensor) -> Array:
    found: Array = (x.float() if x.dtype == torch.bfloat16 else x).contiguous().numpy()
    return found.copy()


def outcome(world: World, program: Program) -> Got:
    """Run a program on one rank; async steps are waited for at the end, the last first."""
    begun = [begin(world, step) for step in program]
    for found, _, _ in reversed(begun):
        if isinstance(found, Handle):
            found.wait()
    return [finished(*each) for each in begun]


def begin(world: World, step: Step) -> tuple[Any, Tensor, Array | None]:
    """Start a step; return what it returned, its input, and the value that has to stay there."""
    given_ = comm_model.inputs(step)[world.rank]
    layout = step.layouts[world.rank]
    x = as_torch(given_, step.dtype, layout)
    where: dict[str, Any] = {}
    in_place = step.out == "x" and not (layout == "expanded" and x.ndim)
    if step.kind in ("all_reduce", "broadcast", "ring") and step.out != "new":
        other = as_torch(np.zeros_like(given_), step.dtype, layout.replace("expanded", "strided"))
        where = {"out": x if in_place else other}
    found = call(world, step, x, where)
    return found, x, None if where.get("out") is x else given_


def call(world: World, step: Step, x: Tensor, where: dict[str, Any]) -> Any:
    sizes = step.sizes[world.rank] if step.sizes else None
    dim, root, op, later = step.dim, step.root, step.op, {"async_op": step.is_async}
    if step.kind == "all_reduce":
        return world.all_reduce(x, op, **where, **later)
    if step.kind == "reduce":
        return world.reduce(x, root, op, **later)
    if step.kind == "reduce_scatter":
        return world.reduce_scatter(x, dim, op=op, sizes=sizes, **later)
    if step.kind == "all_gather":
        return world.all_gather(x, dim, sizes=sizes, **later)
    if step.kind == "gather":
        return world.gather(x, root, dim, **later)
    if step.kind == "scatter":
        mine = x if world.rank == root else None
        return world.scatter(mine, root, dim, sizes=sizes, **later)
    if step.kind == "all_to_all":
        return world.all_to_all(x, dim, sizes=sizes, **later)
    if step.kind == "broadcast":
        return world.broadcast(x, root, **where, **later)
    before, after = (world.rank - 1) % world.world_size, (world.rank + 1) % world.world_size
    sending = world.send(x.clone(), after, tag=1, async_op=True)
    found = world.recv(x, before, tag=1, **where)
    sending.wait()
    return found


def finished(found: Any, x: Tensor, stays: Array | None) -> tuple[Array | None, bool]:
    result = found.wait() if isinstance(found, Handle) else found
    untouched = stays is None or np.array_equal(
        as_numpy(x), stays, equal_nan=stays.dtype.kind == "f"
    )
    return None if result is None else as_numpy(result), untouched


# --- comparing ------------------------------------------------------------------------


def compare(program: Program, per_rank: list[Got]) -> None:
    for rank, got in enumerate(per_rank):
        for step, (found, untouched) in zip(program, got, strict=True):
            wrong = difference(step, rank, found)
            assert not wrong, f"rank {rank}, {step}: {wrong}"
            assert untouched, f"rank {rank}, {step}: its input was changed"


@settings(STEADY, max_examples=60)
@given(st.integers(1, 4).flatmap(lambda n: st.tuples(st.just(n), programs(n))))
def test_on_threads_a_program_means_what_numpy_says(drawn: tuple[int, Program]) -> None:
    n, program = drawn
    compare(program, run_ranks(lambda world: outcome(world, program), n, timeout_s=20))


def drawn_programs(count: int, n: int) -> list[Program]:
    """Return the same programs every time."""
    found: list[Program] = []

    @settings(STEADY, max_examples=count, phases=[Phase.generate])
    @given(programs(n))
    def collect(program: Program) -> None:
        found.append(program)

    collect()
    return found


def test_on_gloo_programs_mean_what_numpy_says() -> None:
    drawn = drawn_programs(GLOO_PROGRAMS, GLOO_RANKS)
    assert len(drawn) == GLOO_PROGRAMS
    assert {step.kind for program in drawn for step in program} == {*REDUCING, *MOVING}
    assert {step.dtype for program in drawn for step in program} == set(DTYPES)
    per_rank = run_ranks(
        lambda world: [outcome(world, program) for program in drawn],
        GLOO_RANKS,
        "gloo",
        timeout_s=60,
        comm_timeout_s=20,
    )
    for number, program in enumerate(drawn):
        compare(program, [got[number] for got in per_rank])


@pytest.mark.parametrize("op", ["sum", "max"])
def test_a_result_that_is_off_is_told(op: str) -> None:
    """The comparison itself can fail: one element off by more than rounding is enough."""
    shapes = ((3,), (3,))
    step = Step("all_reduce", "float32", op, shapes, 0, 0, None, ("plain",) * 2, "new", False, 7)
    good = comm_model.results(step)[0]
    assert good is not None
    assert not difference(step, 0, good.astype(np.float32))
    assert difference(step, 0, (good + np.array([0, 1e-3, 0])).astype(np.float32))
    assert difference(step, 0, good[:2])
    assert difference(step, 0, None)
    assert not np.array_equal(*inputs(step))
