"""Formats numbers and lists for people."""

from __future__ import annotations

import pytest

from distrun.checks.words import counted, gib, mib, rate, some


@pytest.mark.parametrize(("count", "text"), [(0, "no GPUs"), (1, "1 GPU"), (8, "8 GPUs")])
def test_one_is_no_plural(count: int, text: str) -> None:
    assert counted(count, "GPU") == text


@pytest.mark.parametrize(
    ("texts", "said"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_of_a_long_list_the_first_are_said(texts: list[str], said: str) -> None:
    assert some(texts, 2) == said


def test_bytes_are_said_in_powers_of_two() -> None:
    assert (gib(13_207_024_435), mib(64 << 20)) == ("12.3 GiB", "64 MiB")


@pytest.mark.parametrize(
    ("mbps", "text"),
    [(100, "100 Mb/s"), (1000, "1 Gb/s"), (2500, "2.5 Gb/s"), (400_000, "400 Gb/s")],
)
def test_a_rate_is_said_as_people_say_it(mbps: int, text: str) -> None:
    assert rate(mbps) == text
