"""Nothing that others have named moves the cursor of a screen."""

from __future__ import annotations

import re

import pytest

from distrun.cli import render
from distrun.cli.console import Console, plain, say

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\r\x08\x7f\x9b31m\u202e\u2028\ud800c\tä"
SAFE = "a�]0;title��[2Jb����31m���c�ä"


def test_what_can_move_a_cursor_is_replaced() -> None:
    assert plain(HOSTILE) == SAFE
    assert plain("größe · 30 °C × 日本") == "größe · 30 °C × 日本"


def test_a_line_of_the_launcher_is_plain_and_cannot_be_forged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    say(f"{HOSTILE}\ndistrun: done in 3 s")
    assert capfd.readouterr().err == f"distrun: {SAFE}\n  distrun: done in 3 s\n"


def test_the_status_line_is_plain(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    console = Console()
    console.live = True
    console.status(f"{HOSTILE}\nx")
    assert capfd.readouterr().out == f"\r\x1b[2K{SAFE}�x"


def test_cells_and_labels_are_plain(capfd: pytest.CaptureFixture[str]) -> None:
    render.table(("name", "value"), [(HOSTILE, f"{HOSTILE}\n")])
    render.hanging([(HOSTILE, "", [HOSTILE])])
    printed = capfd.readouterr().out
    assert printed.count(SAFE) == 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", printed)


def test_the_output_of_a_rank_is_the_users_own(capfd: pytest.CaptureFixture[str]) -> None:
    Console().lines(b"\x1b[31mred\x1b[0m\n")
    assert capfd.readouterr().out == "\x1b[31mred\x1b[0m\n"
