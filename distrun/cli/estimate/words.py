"""Numbers of an estimate as a person reads them."""

from __future__ import annotations

from distrun.api.estimate import Estimate

GIB, MIB = 2**30, 2**20
_SUFFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def size(nbytes: float) -> str:
    """Return `63.1 GiB`, or `512 MiB`; three digits."""
    value = nbytes / GIB
    if abs(value) < 1:
        return f"{nbytes / MIB:.0f} MiB"
    return f"{value:,.0f} GiB" if abs(value) >= 100 else f"{value:.3g} GiB"


def count(number: float) -> str:
    """Return `8.03 B` for 8.03e9."""
    for factor, suffix in _SUFFIXES:
        if number >= factor:
            return f"{number / factor:.3g} {suffix}"
    return f"{number:.3g}"


def seconds(value: float) -> str:
    """Return `412 ms`, `3.4 s`, `4.1 min` or `2.5 h`."""
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:,.4g} h"


def mesh(sizes: dict[str, int]) -> str:
    """Return `shard 8 x tp 4`, without axes of one rank; "" if there are no others."""
    return " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1)


def where(found: Estimate) -> str:
    """Return `8 nodes of 8 h100, shard 8 x tp 8`."""
    return ", ".join(filter(None, (gpus(found), mesh(dict(found.mesh)))))


def gpus(found: Estimate) -> str:
    """Return `8 nodes of 8 h100`."""
    each = found.gpus
    kind = "GPUs" if found.kind is None else found.kind.name
    if each.nnodes == 1:
        plural = "s" * (found.kind is None and each.nproc_per_node > 1)
        return f"{each.nproc_per_node} {kind if found.kind else 'rank'}{plural}"
    return f"{each.nnodes} nodes of {each.nproc_per_node} {kind}"
