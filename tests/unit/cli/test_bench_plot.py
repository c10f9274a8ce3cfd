"""Pictures of a benchmark, drawn by matplotlib itself."""

from __future__ import annotations

import sys

import pytest

from distrun.cli.bench import pairs, plot
from distrun.errors import UsageError
from distrun.extras import missing
from distrun.spec.bench import PairLink, Pairs, Suspect
from tests.unit.bench import a_report, a_row

PAIRS = Pairs(
    over="node",
    nbytes=1 << 20,
    links=[
        PairLink(a=0, b=1, time_s=1e-3, bandwidth=1e9, measured_alone=False),
        PairLink(a=0, b=2, time_s=1e-2, bandwidth=1e8, measured_alone=True),
        PairLink(a=1, b=2, time_s=1e-3, bandwidth=1e9, measured_alone=False),
    ],
    suspects=[Suspect(kind="link", who=[0, 2], factor=10.0)],
)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_report_is_drawn_with_its_baseline_and_its_pairs(suffix: str) -> None:
    report = a_report(rows=[a_row(nbytes=1024), a_row(nbytes=4096)]).model_copy(
        update={"pairs": PAIRS}
    )
    drawn = plot.draw(report, report, suffix)
    assert drawn.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert drawn.count(b"<!-- all_reduce -->") == 2  # one line an op, in two pictures
        assert b"<!-- dotted: baseline -->" in drawn
        assert b"<!-- 4 KiB -->" in drawn


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(UsageError, match="a plot needs matplotlib") as refused:
        plot.require()
    assert refused.value.hint == missing("matplotlib", "plot") != ""


@pytest.mark.parametrize(
    ("hosts", "names"),
    [(["vm", "vm", "vm"], ["0", "1", "2"]), (["a", "b", "c"], ["0 a", "1 b", "2 c"])],
)
def test_the_map_of_pairs_marks_what_is_slow_and_names_real_hosts(
    hosts: list[str], names: list[str]
) -> None:
    one = a_report(rows=[]).ranks[0]
    ranks = [
        one.model_copy(update={"rank": n, "node": n, "host": host}) for n, host in enumerate(hosts)
    ]
    report = a_report(rows=[]).model_copy(update={"pairs": PAIRS, "ranks": ranks})
    heads, cells = pairs.matrix(report)
    assert heads == ["node", *names]
    assert [row[0] for row in cells] == names
    assert [row[1:] for row in cells] == [["", "1", "0.1 !"], ["1", "", "1"], ["0.1 !", "1", ""]]
    who = f"{names[0]} - {names[2]}"
    assert list(pairs.remarks(report)) == [f"link {who} is slow: 10 times the usual time"]
