"""Sizes that must fit, checked before any process group is there."""

from __future__ import annotations

import math

from distrun.train.config import ConfigError


def sizes(world_size: int, **axes: int) -> dict[str, int]:
    """Return the size of each axis of a mesh over all ranks; one may be -1, for the rest.

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
    """Refuse `value` things that do not divide among `count` of `by`, and name what would.

    Args:
        what: A flag, whose value may be changed; else what the model or another flag gives.
        value: How many.
        count: Among how many.
        by: What these are, in the plural.
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
