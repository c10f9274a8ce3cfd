"""Checks sizes before any process group exists."""

from __future__ import annotations

import math

from distrun.train.config import ConfigError


def sizes(world_size: int, **axes: int) -> dict[str, int]:
    """Return the size of each axis of a mesh over all ranks; one may be -1: the remaining ranks.

    Raises:
        ConfigError: Their product is not the world size.
    """
    fixed = math.prod(size for size in axes.values() if size != -1)
    shown = " x ".join(f"{name} {size}" for name, size in axes.items() if size != -1)
    free = [name for name, size in axes.items() if size == -1]
    if world_size % fixed or (not free and fixed != world_size):
        near = fixed * max(1, round(world_size / fixed))
        ranks = f"{fixed} rank{'s' * (fixed != 1)}"
        needs = f"a multiple of {ranks}, such as {near}" if free else ranks
        raise ConfigError(f"{shown} needs {needs}, not {world_size}")
    return {name: world_size // fixed if size == -1 else size for name, size in axes.items()}


def require_divides(what: str, value: int, count: int, by: str, *, most: float = math.inf) -> None:
    """Refuse a value that is not a multiple of `count`, and name values that fit.

    Args:
        what: The name of the value; a flag, or something that the model or another flag gives.
        value: The value to divide.
        count: The divisor.
        by: What `count` counts, in the plural.
        most: The largest value that the flag may have.

    Raises:
        ConfigError: They do not divide.
    """
    if not value % count:
        return
    below = value - value % count
    near = f"{what} " + " or ".join(str(n) for n in (below, below + count) if 0 < n <= most)
    if not what.startswith("--"):
        fits = sorted(
            (n for n in range(1, value + 1) if not value % n), key=lambda n: abs(n - count)
        )
        near = " or ".join(map(str, sorted(fits[:2]))) + f" {by}"
    raise ConfigError(f"{what} {value} does not divide among {count} {by}: {near} would")
