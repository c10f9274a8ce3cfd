"""Nothing that others have named moves the cursor of a screen."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import ExitStack

import pytest

from distrun.cli.screen import render
from distrun.cli.screen.console import Console, plain, report_error, say
from distrun.streams import STDERR, STDOUT

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [("x" * 39, "x" * 39), ("x" * 40, "x" * 38 + "…"), ("日" * 90, "日" * 19 + "…")],
)
def test_the_status_line_never_reaches_the_last_column_where_it_would_wrap(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console = Console()
    console.live = True
    console.status(text)
    console.status(text)
    assert capfd.readouterr().out == f"\r\x1b[2K{shown}", "written once"


@pytest.mark.parametrize("names", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_a_terminal_that_is_gone_ends_the_showing_and_not_the_run(names: list[str]) -> None:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in names:
            read, write = os.pipe()
            os.close(read)
            # Unbuffered: what could not be written is not tried again when it is closed.
            gone = io.TextIOWrapper(os.fdopen(write, "wb", buffering=0), write_through=True)
            patch.setattr(sys, name, stack.enter_context(gone))
        console = Console()
        for _ in range(2):
            console.lines(b"a line\n", STDOUT)
            console.lines(b"a line\n", STDERR)
            console.say("a word")
        assert console.broken == (len(names) == 2), "the other one is still shown"


def test_an_error_is_wrapped_between_words_on_a_terminal_and_its_hint_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "launch does not take --local-addr: it starts every node itself, on this machine"
    hint = "distrun launch --nodes 2 --nproc-per-node 4 --env NAME=VALUE train.py"
    report_error(message, hint)
    assert capsys.readouterr().err == f"distrun: error: {message}\ndistrun: hint: {hint}\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    report_error(message, hint)
    *lines, last = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 40 and last == f"distrun: hint: {hint}"
    assert " ".join(line.strip() for line in lines) == f"distrun: error: {message}"
