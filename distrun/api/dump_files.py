"""Finds torch's dumps, and stacks beside them, in a directory of a job that another launched."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distrun.diagnose.hang.dump_file import MAX_NBYTES, parsed
from distrun.diagnose.hang.evidence import Record, Witness
from distrun.diagnose.hang.read import record_of
from distrun.errors import UsageError

_DUMP = re.compile(r"(?<!\d)(\d{1,7})(?:\.json|\.pkl|\.pickle)?$")
_STACKS = re.compile(r"(?<!\d)(\d{1,7})\.(?:txt|log|stacks)$")
_OF_FAULTHANDLER = "(most recent call first):"
_STACKS_NBYTES = 1 << 20
_HINT = "torch names its dumps by TORCH_FR_DUMP_TEMP_FILE, with the rank at the end: dump_3"


def witnesses_of(paths: Sequence[Path], tell: Callable[[str], None]) -> dict[int, Witness]:
    """Return what dumps tell of each rank; the rank is the number at the end of a file's name.

    Args:
        paths: Files, or one directory; its `flight` and `stacks` are searched too.
        tell: Called with a line about each file that is not used.

    Raises:
        UsageError: There is no dump, or a file that is named is none.
    """
    records: dict[int, Record] = {}
    twice = 0
    named = not paths[0].is_dir()
    for path in paths if named else _files(paths[0], "flight"):
        found = _DUMP.search(path.name)
        if not found:
            if named:
                raise UsageError(f"{path}: its name does not end in a rank", _HINT)
            continue
        try:
            record = record_of(parsed(_read(path, MAX_NBYTES), str(path)))
        except UsageError as error:
            if named:
                raise
            tell(f"{error.message}: it is not used")
            continue
        rank = int(found[1])
        twice += rank in records
        records.setdefault(rank, record)
    if not records:
        raise UsageError(f"{paths[0]} holds no dump of torch's flight recorder", _HINT)
    if twice:
        tell(f"{twice} files are not used: there is another of the same rank")
    stacks = dict(_stacks_beside(paths[0] if not named else paths[0].parent))
    ranks = sorted(records)
    return {n: Witness(n, "", record=records[n], stacks=stacks.get(n, "")) for n in ranks}


def _files(directory: Path, below: str) -> Iterator[Path]:
    """Yield the files of a directory and of one below it; pickles first: they hold the calls."""
    for place in (directory, directory / below):
        if place.is_dir():
            found = (p for p in place.iterdir() if p.name[0] != "." and not p.is_dir())
            yield from sorted(found, key=lambda path: (path.suffix == ".json", path.name))


def _stacks_beside(directory: Path) -> Iterator[tuple[int, str]]:
    for path in _files(directory, "stacks"):
        if found := _STACKS.search(path.name):
            try:
                text = _read(path, _STACKS_NBYTES).decode(errors="replace")
            except UsageError:
                continue  # a large log
            if _OF_FAULTHANDLER in text:
                yield int(found[1]), text


def _read(path: Path, limit_nbytes: int) -> bytes:
    """Return a file's content.

    Raises:
        UsageError: It cannot be read, is no regular file, or is larger than the limit.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path} is not a regular file")
            data = file.read(limit_nbytes + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit_nbytes:
        raise UsageError(f"{path} is larger than {limit_nbytes >> 20} MiB")
    return data
