"""A table as text for programs and for issues: CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a line with the heads and a line per row; None is an empty cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue()


def as_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for an issue or a pull request."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(_inline(cell) for cell in line)} |\n" for line in lines)


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
