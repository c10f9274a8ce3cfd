"""Bugs in the room that makes reports."""

from __future__ import annotations

from tests.mutants.patch import Patch

REPORTS = (
    Patch(
        "report/page.py",
        "autoescape=True",
        "autoescape=False",
        "dropped part",
        "The name of a recipe runs as a script in the browser of whoever opens a report.",
        ("unit/report/test_page.py",),
    ),
    Patch(
        "report/decimate.py",
        "sorted({part[0], least, greatest, part[-1]})",
        "sorted({part[0], part[-1]})",
        "dropped part",
        "A spike of the loss is not drawn.",
        ("unit/report/test_decimate.py", "unit/report/test_page.py"),
    ),
    Patch(
        "report/waits.py",
        "rank = min(self.by_rank,",
        "rank = max(self.by_rank,",
        "inverted condition",
        "The rank that waits most is called the straggler.",
        ("unit/report/test_waits.py",),
    ),
)
