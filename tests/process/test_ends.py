"""A script that has come to its end ends, wherever it keeps its model and process group.

The short form of `benchmarks/endings.py`, with the kinds in which gloo's threads are most often
still busy at the end: torch's ~ProcessGroupGloo joins them, while they wait for the GIL.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.endings import SCRIPT, Ends, Kind, command, end_once

RANKS = 4
TIMES, HANG_S = 2, 60.0


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("by", "kind"),
    [
        ("warm", Kind("local", "before", "nothing")),
        ("warm", Kind("local", "before", "handle")),
        ("warm", Kind("local", "before", "threads")),
        ("warm", Kind("global", "never", "handle")),
        ("warm", Kind("cycle", "after", "subgroup")),
        ("cold", Kind("local", "never", "threads")),
    ],
    ids=str,
)
def test_four_ranks_that_have_trained_end_with_0(by: str, kind: Kind, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ends = Ends()
    for _ in range(TIMES):
        ends.add(end_once(command(by, RANKS, script, kind), tmp_path, HANG_S))
    assert (ends.hangs, ends.aborts) == (0, 0), ends.words
