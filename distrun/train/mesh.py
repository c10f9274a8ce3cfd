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
        near = fixed * max(1, round(world_size / fixed)) if free else fixed
        raise ConfigError(f"{shown} needs {_ranks(near, bool(free))}, not {world_size} ranks")
    return {name: world_size // fixed if size == -1 else size for name, size in axes.items()}


def _ranks(count: int, free: bool) -> str:
    return f"a multiple of ranks such as {count}" if free else f"{count} ranks"


def require_divides(what: str, value: int, by: str, count: int) -> None:
    """Refuse `value` things that do not divide among `count`, and name what would.

    Raises:
        ConfigError: They do not divide.
    """
    if value % count:
        fits = [n for n in range(1, value + 1) if value % n == 0]
        below = value - value % count
        near = " or ".join(str(n) for n in (below, below + count) if n > 0)
        raise ConfigError(
            f"{what} {value} does not divide among {by} {count}: {near} does,"
            f" or {by} {min(fits, key=lambda n: (abs(n - count), n))}"
        )
