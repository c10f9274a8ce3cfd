"""Lists of ranks on a command line: `0,3` or `0-2,7`."""

from __future__ import annotations

import re

from distrun.errors import UsageError

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


def rank_list(option: str, text: str | None, world_size: int) -> frozenset[int] | None:
    """Return the ranks that an option names; None if it was not given.

    Raises:
        UsageError: It is not a list of ranks, or names a rank that the world does not have.
    """
    if text is None:
        return None
    ranks: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first = int(match[1]) if match else 0
        last = int(match[2]) if match and match[2] else first
        if match is None or last < first:
            raise UsageError(f"{option} {text!r} is not a list of ranks", f"{option} 0,3 or 0-2,7")
        if last >= world_size:
            all_ranks = f"0 to {world_size - 1}" if world_size > 1 else "0 alone"
            raise UsageError(f"{option} {text}: no rank {last}, the ranks are {all_ranks}")
        ranks.update(range(first, last + 1))
    return frozenset(ranks)
