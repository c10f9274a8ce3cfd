"""Charts: every text is escaped, and what cannot be drawn is marked."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from distrun.report.chart import Chart, Curve, draw

HOSTILE = "</svg><script>alert(1)</script>\"'&"


def test_names_stay_text() -> None:
    chart = Chart([Curve(HOSTILE, 0, [1.0, 2.0], [1.0, 2.0])], HOSTILE, marks=[(1.5, HOSTILE)])
    root = ElementTree.fromstring(draw(chart))
    titles = [each.text for each in root.iter("title")]
    assert titles == [HOSTILE, HOSTILE] and root.get("aria-label") == HOSTILE
    assert not list(root.iter("script"))


def test_a_value_that_is_not_finite_is_a_cross_and_a_gap_in_no_line() -> None:
    curve = Curve("loss", 0, [1.0, 2.0, 3.0], [1.0, math.nan, 3.0])
    root = ElementTree.fromstring(draw(Chart([curve], "loss")))
    assert [path.get("class") for path in root.iter("path")].count("nan") == 1
    assert "nan" not in draw(Chart([Curve("a", 0, [1.0, 2.0], [1.0, 2.0])], "a"))


def test_without_a_finite_value_nothing_is_drawn() -> None:
    assert draw(Chart([Curve("loss", 0, [1.0], [math.nan])], "loss")) == ""
    assert draw(Chart([], "loss")) == ""


def test_one_value_is_a_dot() -> None:
    assert "<circle" in draw(Chart([Curve("loss", 0, [1.0], [2.0])], "loss"))
