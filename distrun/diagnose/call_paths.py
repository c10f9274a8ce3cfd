"""The calls that a rank is in, from the stacks that faulthandler wrote, and who shares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distrun.diagnose.places import WRAPPERS, Frame, called_at, frames_of
from distrun.frames import is_library


@dataclass(frozen=True)
class CallPath:
    """The calls of the thread that got the signal, the outermost first."""

    user: tuple[Frame, ...]
    """Those in the user's code."""
    library: tuple[Frame, ...]
    """Those below the innermost of them, in libraries: the called one and, last, the innermost."""
    called: str = ""
    """The function that the innermost line of the user's code calls, if it is known."""


def path_of(stacks: str) -> CallPath:
    """Return the call path in faulthandler's output for a process; empty if there is none."""
    frames = frames_of(stacks)[::-1]
    users = [number for number, frame in enumerate(frames) if not is_library(frame.file)]
    below = frames[users[-1] + 1 :] if users else frames
    library = (below[0], below[-1]) if len(below) > 1 else tuple(below)
    user = tuple(frames[number] for number in users)
    called = called_at(user[-1].file, user[-1].line) if user else ""  # one in C has no frame
    named = (frame.function for frame in below if frame.function not in WRAPPERS)
    called = called or next(named, library[0].function if library else "")
    return CallPath(user, library, called)


def shared(paths: Mapping[int, CallPath]) -> list[tuple[list[int], CallPath]]:
    """Return who is where: ranks in the same calls together, the fewest ranks first."""
    groups: dict[CallPath, list[int]] = {}
    for rank in sorted(paths):
        groups.setdefault(paths[rank], []).append(rank)
    found = [(ranks, path) for path, ranks in groups.items()]
    return sorted(found, key=lambda group: (len(group[0]), group[0]))
