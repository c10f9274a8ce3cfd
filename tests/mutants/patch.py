"""One bug that somebody could write, and the tests that are to notice it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "off by one",
    "dropped part",
    "wrong unit",
    "missing flush",
    "wrong order",
    "inverted condition",
    "swallowed error",
]


class PatchError(Exception):
    """A patch does not fit the code any more: mend the table."""


@dataclass(frozen=True)
class Patch:
    """One place in one file, changed."""

    file: str
    """Below distrun/."""
    old: str
    """Stands there exactly once."""
    new: str
    kind: Kind
    bug: str
    """What it does to a user, in a sentence."""
    tests: tuple[str, ...]
    """Below tests/."""

    @property
    def room(self) -> str:
        """`supervise` for supervise/world.py; "" for a module that everybody may import."""
        return self.file.rpartition("/")[0].partition("/")[0]

    def apply(self, tree: Path) -> None:
        """Change the file in a copy of the repository.

        Raises:
            PatchError: The old text is not there, or more than once.
        """
        path = tree / "distrun" / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (count := text.count(self.old)) != 1:
            raise PatchError(
                f"distrun/{self.file} has this text {count} times, not once: {self.old!r}"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
