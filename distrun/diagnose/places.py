"""Where ranks are, as a sentence, from the stacks that faulthandler wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distrun.frames import is_library

if TYPE_CHECKING:
    import ast

_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')
_CALL = re.compile(r'(?m)^ +File "(.+)", line (\d+), in (.+)$')
_NAMED_RANKS = 4
_COMPUTES = re.compile(
    r"(torch\.(?!cuda\b|distributed\b)|(np|numpy|math|random|F|scipy|pd|pandas|cv2|Image)\."
    r"|(re|json|pickle|copy|hashlib|zlib|gzip|heapq|bisect|statistics)\.|sorted$)"
)
"""Functions of libraries that compute, as they are usually written."""
WRAPPERS = {
    *("wrapper", "inner", "wrapped", "_fn", "decorate_context", "__call__", "fn"),
    *("_wrapped_call_impl", "_call_impl", "fsdp_hook_wrapper"),
}
"""Functions in libraries that only pass a call on, such as torch/distributed/c10d_logger.py's."""
_SOURCE_LIMIT_NBYTES = 4 << 20


@dataclass(frozen=True)
class Place:
    """A line of the user's code, and the function that it calls."""

    file: str
    line: int
    call: str = ""

    def __str__(self) -> str:
        called = f" ({self.call})" if self.call else ""
        return f"{Path(self.file).name}:{self.line}{called}"


class Frame(NamedTuple):
    """One call on a stack."""

    file: str
    line: int
    function: str


def place_of(stacks: str) -> Place | None:
    """Return the innermost user line of the thread that got the signal, or None.

    Args:
        stacks: faulthandler's output for a process
            (https://docs.python.org/3/library/faulthandler.html).
    """
    inner = ""
    for frame in frames_of(stacks):
        if not is_library(frame.file):
            return Place(frame.file, frame.line, called_at(frame.file, frame.line) or inner)
        if frame.function not in WRAPPERS:
            inner = frame.function
    return None


def frames_of(stacks: str) -> list[Frame]:
    """Return the frames of the thread that got the signal, the innermost first.

    Args:
        stacks: As for `place_of`.
    """
    found = filter(None, map(_FRAME.match, _own_thread(stacks)))
    return [Frame(f["file"], int(f["line"]), f["function"]) for f in found]


def as_stacks(traceback: str) -> str:
    """Return a traceback of Python as faulthandler writes stacks: the innermost call first."""
    lines = [f'  File "{f[1]}", line {f[2]} in {f[3]}' for f in _CALL.finditer(traceback)]
    return "\n".join(["Current thread (most recent call first):", *reversed(lines)])


def _own_thread(stacks: str) -> list[str]:
    """Return the lines of the thread that is meant, from faulthandler's output.

    That is the current thread; but if it was started by `threading`, a watchdog asked, for the main
    thread's sake.
    """
    blocks = re.split(r"(?m)^(?=Current thread |Thread )", stacks)
    own = next((b for b in blocks if b.startswith("Current thread ")), blocks[-1])
    if _is_started_thread(own):
        main = (b for b in blocks if b.startswith("Thread ") and not _is_started_thread(b))
        own = next(main, own)
    # Of one thread alone: the last of them, for a stopped rank answers an earlier request late.
    return re.split(r"(?m)^(?=Stack \(most recent call first\))", own)[-1].splitlines()


def _is_started_thread(block: str) -> bool:
    return block.rstrip().endswith(" in _bootstrap")


def called_at(file: str, line: int) -> str:
    """Return the name of the function that a source line calls, "" if it is ambiguous."""
    return callee_at(file, line).rpartition(".")[2]


def callee_at(file: str, line: int) -> str:
    """Return what a source line calls as it is written, `time.sleep`; "" if it is ambiguous."""
    (*names,) = callees_at(file, line)
    return names[0] if len(names) == 1 else ""


@cache
def callees_at(file: str, line: int) -> frozenset[str]:
    """Return all that a source line calls, as it is written."""
    import ast  # imported only when needed

    calls = [n for n in _nodes_of(file) if isinstance(n, ast.Call) and n.lineno == line]
    return frozenset(map(_name_of, calls))


def _name_of(call: ast.Call) -> str:
    """Return `torch.cat` for a call of it; of one that begins with no name what is known."""
    import ast

    name, callee = [], call.func
    while isinstance(callee, ast.Attribute):
        name.append(callee.attr)
        callee = callee.value
    if isinstance(callee, ast.Name):
        name.append(callee.id)
    return ".".join(reversed(name))


@cache
def in_waiting_loop(file: str, line: int) -> bool:
    """Return whether the innermost loop around a source line is a `while` that computes nothing.

    What waits asks the same question again; what calls functions for tensors or arrays computes.
    One that yields is driven by another loop, and may be seen between two of its long calls into C.
    """
    import ast

    nodes = _nodes_of(file)
    loops = [n for n in nodes if isinstance(n, (ast.While, ast.For, ast.AsyncFor))]
    around = [n for n in loops if n.lineno <= line <= (n.end_lineno or n.lineno)]
    if not around or not isinstance(inner := max(around, key=lambda n: n.lineno), ast.While):
        return False
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(inner)):
        return False
    calls = [node for node in ast.walk(inner) if isinstance(node, ast.Call)]
    return not any(_COMPUTES.match(_name_of(call)) for call in calls)


def _nodes_of(file: str) -> list[ast.AST]:
    """Return all nodes of a source file's syntax tree; none if it cannot be read."""
    import ast

    try:
        path = Path(file)
        if not path.is_file() or path.stat().st_size > _SOURCE_LIMIT_NBYTES:
            return []
        return list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


def grouped(places: Mapping[int, Place | None]) -> str:
    """Return `rank 1 at data.py:31 (sleep); 3 others at train.py:70 (all_reduce)`.

    Args:
        places: Place by rank; None if it has no user line: it is on its way out.
    """
    groups: dict[str, list[int]] = {}
    for rank, place in sorted(places.items()):
        if place:
            groups.setdefault(f"at {place}", []).append(rank)
    parts: list[str] = []
    for where, ranks in sorted(groups.items(), key=lambda group: (len(group[1]), group[1])):
        if len(ranks) <= _NAMED_RANKS:
            who = f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
        else:
            who = f"{len(ranks)} {'others' if parts else 'ranks'}"
        parts.append(f"{who} {where}")
    return "; ".join(parts)
