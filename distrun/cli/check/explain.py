"""`distrun check --explain`: what a rule checks and why, its limits, and the cure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from distrun.api.explain import Explanation
from distrun.cli.screen.render import terminal_columns

_WIDTH = 88
"""Longer lines are hard to read, even on a wide terminal."""


def one_line_each(found: list[Explanation]) -> Iterator[str]:
    """Yield the id and the title of each."""
    width = max(len(each.rule.id) for each in found)
    for each in found:
        yield f"{each.rule.id:<{width}}  {each.rule.title}"


def in_full(found: list[Explanation]) -> Iterator[str]:
    """Yield the lines of each, with an empty line between rules."""
    for number, each in enumerate(found):
        if number:
            yield ""
        yield f"{each.rule.id}: {each.rule.title}"
        yield from _paragraph("why", each.rule.why)
        for limit in each.limits:
            changed = "" if limit.value == limit.default else f", by default {limit.default}"
            name = limit.name.replace("_", "-")
            yield from _paragraph("limit", f"{name} = {limit.value}{changed}: {limit.doc}")
        yield from _paragraph("fix", each.rule.fix)
        yield from _paragraph("source", each.rule.source)
        launch = "`distrun launch` looks at it too" if each.rule.quick else "`distrun check` alone"
        gpus = "; no more than a note to a job without GPUs" if each.rule.gpus_only else ""
        yield from _paragraph("when", launch + gpus)


def _paragraph(name: str, text: str) -> list[str]:
    width = min(_WIDTH, terminal_columns() or _WIDTH)
    return textwrap.wrap(text, width, initial_indent=f"  {name:<8}", subsequent_indent=" " * 10)
