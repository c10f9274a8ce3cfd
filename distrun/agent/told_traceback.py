"""Reads a traceback that came as text, from another process or thread."""

from __future__ import annotations

import re
from typing import NamedTuple

from distrun.frames import is_library, shortened

_HEADER = re.compile(
    r"^(?P<prefix>[ |+]*)(?:Original |Exception Group )?Traceback \(most recent call last\):"
    r"(?: \(RANK (?P<rank>\d+)\))?\s*$",
    re.MULTILINE,
)
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<function>.+))?$')
_ERROR = re.compile(r"^(?P<type>[^\W\d][\w.<>]*)(?:: ?(?P<message>.*))?\Z", re.DOTALL)
_DIRECT = "The above exception was the direct cause of the following exception:"
_END = re.compile(
    rf'^[ |]*(?:{_DIRECT}|During handling of the above .*|"""|\+-*)\s*$', re.MULTILINE
)
_SECOND = re.compile(r"^[ |]*\+-+ 2 -+$|^Traceback .*: \(RANK \d+\)$", re.MULTILINE)
"""Where the second error of a group begins, or the error of another rank of a checkpoint."""
_CARRIERS = (
    (re.compile(r"Caught \S+ (in .+)\.\nOriginal Traceback"), r"\1"),
    (re.compile(r"-- Process (\d+) terminated with the following"), r"in process \1 of mp.spawn"),
    (re.compile(r"On WorkerInfo\(.*?name=([^,)]+)\)"), r"in RPC worker \1"),
    (
        re.compile(r"^CheckpointException ranks:.*\n.* \(RANK (\d+)\)"),
        r"on rank \1 of a checkpoint",
    ),
)
_HEAD_CHARS, _LIMIT_CHARS = 1 << 12, 1 << 20


class Told(NamedTuple):
    """An error, read from its traceback."""

    type: str
    message: str
    frame: tuple[str, int, str, str]
    """File, line, function and source of the last line in the user's code, or of the last line."""
    own: bool
    """That line is the user's."""
    carrier: str = ""


class _Block(NamedTuple):
    """One traceback in a text that may hold several."""

    lines: list[str]
    causes_next: bool


def told_in(text: str) -> Told | None:
    """Return the original error of a text that holds a traceback, else None."""
    if "Traceback (most recent call last):" not in text:
        return None
    carrier = _carrier(text[:_HEAD_CHARS])
    text = shortened(text, _LIMIT_CHARS)
    blocks = _blocks(text)
    while len(blocks) > 1 and blocks[-2].causes_next:
        if (told := _read(blocks[-2])) is None or not told.own:
            break
        blocks.pop()
    told = _read(blocks[-1]) if blocks else None
    return told and told._replace(carrier=carrier)


def _carrier(text: str) -> str:
    for pattern, words in _CARRIERS:
        if found := pattern.search(text):
            return found.expand(words).replace(" worker process ", " worker ")
    return ""


def _blocks(text: str) -> list[_Block]:
    first, second = _HEADER.search(text), None
    if first:
        second = _SECOND.search(text, first.end())
    text = text[: second.start()] if second else text
    headers = list(_HEADER.finditer(text))
    blocks = []
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        part = text[header.end() + 1 : following.start() if following else len(text)]
        end = _END.search(part)
        width = len(header["prefix"])
        lines = part[: end.start() if end else len(part)].splitlines()
        blocks.append(_Block([line[width:] for line in lines], _DIRECT in part))
    return blocks


def _read(block: _Block) -> Told | None:
    frames = [(i, m) for i, line in enumerate(block.lines) if (m := _FRAME.match(line))]
    said = next((i for i, line in enumerate(block.lines) if line[:1] not in ("", " ")), None)
    error = said is not None and _ERROR.match("\n".join(block.lines[said:]).rstrip())
    frames = [(i, m) for i, m in frames if said is not None and i < said]
    if not error or not frames:
        return None
    own = [frame for frame in frames if not is_library(frame[1]["file"])]
    index, frame = (own or frames)[-1]
    source = block.lines[index + 1].strip() if index + 1 < len(block.lines) else ""
    place = frame["file"], int(frame["line"]), frame["function"] or "<module>", source
    name = error["type"].rpartition(".")[2]
    return Told(name, (error["message"] or "").strip(), place, bool(own))
