"""Numbers of an estimate as a person reads them."""

from __future__ import annotations

from distrun.api.estimate import Estimate

GIB = 2**30
_SUFFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def gib(nbytes: float) -> str:
    """Return `63.1 GiB`; three digits."""
    value = nbytes / GIB
    return f"{value:.0f} GiB" if abs(value) >= 100 else f"{value:.3g} GiB"


def count(number: float) -> str:
    """Return `8.03 B` for 8.03e9."""
    for factor, suffix in _SUFFIXES:
        if number >= factor:
            return f"{number / factor:.3g} {suffix}"
    return f"{number:.3g}"


def seconds(value: float) -> str:
    """Return `412 ms`, `3.4 s` or `4.1 min`."""
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def mesh(sizes: dict[str, int]) -> str:
    """Return `shard 8 x tp 4`, without axes of one rank."""
    return " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one rank"


def gpus(found: Estimate) -> str:
    """Return `8 nodes of 8 h100`."""
    each = found.gpus
    kind = "GPUs" if found.kind is None else found.kind.name
    if each.nnodes == 1:
        return f"{each.nproc_per_node} {kind}" if found.kind else f"{each.nproc_per_node} ranks"
    return f"{each.nnodes} nodes of {each.nproc_per_node} {kind}"
