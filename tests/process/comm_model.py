"""Random programs of collectives, and what they mean in NumPy alone.

A program is plain data, the same on every rank. The model knows nothing of distrun: it makes
the inputs of all ranks out of a step's seed, and works out what each rank gets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
FLOATS = ("float64", "float32", "float16", "bfloat16")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
COMPLEX = ("complex64", "complex128")
DTYPES = (*FLOATS, *SIGNED, *UNSIGNED, *COMPLEX, "bool")
REDUCING = ("all_reduce", "reduce", "reduce_scatter")
MOVING = ("all_gather", "gather", "scatter", "all_to_all", "broadcast", "ring")
ARITHMETIC = ("sum", "prod", "max", "min")
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_EPS |= {"complex128": _EPS["float64"], "complex64": _EPS["float32"]}


class Step(NamedTuple):
    """One collective, in which all ranks of a world, or of its parts, take part."""

    kind: str
    dtype: str
    op: str
    shapes: tuple[tuple[int, ...], ...]
    """Of each rank's input."""
    dim: int
    root: int
    sizes: tuple[tuple[int, ...], ...] | None
    """What each rank says, where it says any."""
    layouts: tuple[str, ...]
    """How each rank's input lies in memory."""
    out: str
    """Where the result goes: new, other, or x."""
    is_async: bool
    seed: int


def ops_of(dtype: str) -> tuple[str, ...]:
    """Return the reductions that a dtype has."""
    if dtype in FLOATS:
        return (*ARITHMETIC, "mean")
    return ("sum", "mean") if dtype in COMPLEX else (*ARITHMETIC, "band", "bor", "bxor")


def model_dtype(dtype: str) -> Any:
    """Return NumPy's dtype, which for bfloat16 is one that holds all of its values."""
    return np.dtype("float32" if dtype == "bfloat16" else dtype)


def inputs(step: Step) -> list[Array]:
    """Return what each rank gives."""
    return [_values(step, rank, shape) for rank, shape in enumerate(step.shapes)]


def _values(step: Step, rank: int, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng([step.seed, rank])
    dtype = model_dtype(step.dtype)
    found: Array
    if step.dtype in SIGNED + UNSIGNED:
        limits = np.iinfo(dtype)
        found = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        ends = np.array([limits.min, limits.max, 0, 1], dtype)
        found = np.where(rng.random(shape) < 0.3, rng.choice(ends, shape), found)
    elif step.dtype == "bool":
        found = rng.random(shape) < 0.5
    elif step.dtype in COMPLEX:
        found = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    else:
        found = np.asarray(rng.standard_normal(shape)).astype(dtype)
        if step.op in ("max", "min"):  # of sums, the order of adding would decide what comes out
            special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
            found = np.where(rng.random(shape) < 0.4, rng.choice(special, shape), found)
        if step.dtype == "bfloat16":  # cut down to the upper half of its bits
            found = (np.ascontiguousarray(found).view(np.uint32) & 0xFFFF0000).view(np.float32)
    found = np.asarray(found, dtype).reshape(shape)
    if step.layouts[rank] == "expanded" and shape and shape[0]:
        found = np.ascontiguousarray(np.broadcast_to(found[:1], shape))
    return found


def results(step: Step) -> list[Array | None]:
    """Return what each rank gets."""
    xs = inputs(step)
    n = len(xs)
    rows = [x.reshape(1) if x.ndim == 0 else x for x in xs]  # a scalar counts as one row
    if step.kind == "all_reduce":
        return [_reduced(step, xs)] * n
    if step.kind == "reduce":
        return [_reduced(step, xs) if rank == step.root else None for rank in range(n)]
    if step.kind == "reduce_scatter":
        return list(_parts(step, _reduced(step, xs), 0))
    if step.kind == "all_gather":
        return [np.concatenate(rows, step.dim)] * n
    if step.kind == "gather":
        return [np.concatenate(rows, step.dim) if r == step.root else None for r in range(n)]
    if step.kind == "scatter":
        return list(_parts(step, rows[step.root], step.root))
    if step.kind == "all_to_all":
        sent = [_parts(step, row, rank) for rank, row in enumerate(rows)]
        return [np.concatenate([parts[rank] for parts in sent], step.dim) for rank in range(n)]
    if step.kind == "broadcast":
        return [xs[step.root]] * n
    return [xs[rank - 1] for rank in range(n)]  # a ring: from the rank before


def _parts(step: Step, x: Array, rank: int) -> list[Array]:
    n = len(step.shapes)
    if step.sizes is None:
        return np.split(x, n, step.dim)
    return np.split(x, np.cumsum(step.sizes[rank])[:-1], step.dim)


def _reduced(step: Step, xs: list[Array]) -> Array:
    whole = np.stack(xs)
    if step.dtype == "bool":
        if step.op == "bxor":
            return np.asarray(whole.sum(0) % 2 == 1)
        return np.asarray(whole.any(0) if step.op in ("sum", "max", "bor") else whole.all(0))
    if step.op in ("sum", "prod", "mean"):
        exact = whole.dtype if step.dtype in SIGNED + UNSIGNED else wide(step.dtype)
        with np.errstate(over="ignore"):  # integers wrap, as in torch
            total = (np.prod if step.op == "prod" else np.sum)(whole, 0, dtype=exact)
        return np.asarray(total / len(xs) if step.op == "mean" else total)
    by_bits = {"band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}
    if step.op in by_bits:
        return np.asarray(by_bits[step.op].reduce(whole, 0))
    if step.dtype not in FLOATS:
        return np.asarray(whole.max(0) if step.op == "max" else whole.min(0))
    found = np.asarray(whole.max(0) if step.op == "max" else whole.min(0))
    negative = np.signbit(whole).all(0) if step.op == "max" else np.signbit(whole).any(0)
    return np.where(found == 0, np.where(negative, -0.0, 0.0), found)  # -0.0 is below 0.0


def wide(dtype: str) -> Any:
    """Return the dtype in which rounding does not show."""
    return np.complex128 if dtype in COMPLEX else np.float64


def tolerance(step: Step) -> Array | float:
    """Return how far rounding may take a reduction from the truth: of each element, or 0."""
    if step.kind not in REDUCING or step.op not in ("sum", "mean", "prod"):
        return 0.0
    if step.dtype not in _EPS:
        return 0.0
    magnitudes = np.abs(np.stack(inputs(step)).astype(wide(step.dtype)))
    n = len(magnitudes)
    size = np.prod(magnitudes, 0) if step.op == "prod" else magnitudes.sum(0)
    # The last term: numbers below the smallest normal have fewer bits.
    return np.asarray(n * _EPS[step.dtype] * size + (6e-8 if step.dtype == "float16" else 0))


def difference(step: Step, rank: int, got: Array | None) -> str:
    """Return what is wrong with what a rank got, or ""."""
    want = results(step)[rank]
    if want is None or got is None:
        return "" if want is got else f"got {got}, not {want}"
    if got.shape != want.shape:
        return f"got shape {got.shape}, not {want.shape}"
    limit = tolerance(step)
    if isinstance(limit, float):
        same_zeros = step.dtype not in FLOATS or bool(
            (np.signbit(got) == np.signbit(want))[want == 0].all()
        )
        equal = np.array_equal(got, want, equal_nan=step.dtype in FLOATS)
        return "" if equal and same_zeros else f"got {got}, not {want}"
    if step.kind == "reduce_scatter":
        limit = _parts(step, np.asarray(limit), 0)[rank]
    off = np.abs(got.astype(wide(step.dtype)) - want)
    return "" if (off <= limit).all() else f"got {got}, not {want}: {off} is above {limit}"
