"""A dying rank's traceback, however long, stays off the console."""

from __future__ import annotations

import pytest

from distrun.cli.screen.held_traceback import HeldTraceback


class Lines:
    """Keeps what a console would show."""

    def __init__(self) -> None:
        self.shown = b""

    def lines(self, block: bytes, stream: str) -> None:
        self.shown += block


LONG = b"".join(b"line %d of the message\n" % number for number in range(200_000))


def test_one_of_megabytes_is_dropped_like_any_other() -> None:
    held, console = HeldTraceback(), Lines()
    assert held.hold(b"before\nTraceback (most recent call last):\n", b"") == b"before\n"
    for start in range(0, len(LONG), 1 << 16):
        assert held.hold(LONG[start : start + (1 << 16)], b"") == b""
        held.release_if_due(console, dying=True)
    held.hold(b"the last line\nand more\n", b"")
    held.drop("Traceback (most recent call last):\n  File x\nthe last line", console)
    assert console.shown == b"and more\n"


def test_one_of_megabytes_that_the_rank_outlives_is_shown_by_its_ends() -> None:
    held, console = HeldTraceback(), Lines()
    held.hold(b"Traceback (most recent call last):\n" + LONG + b"the end\n", b"[0] ")
    held.release(console)
    assert console.shown.startswith(b"[0] Traceback") and console.shown.endswith(b"the end\n")
    assert b"bytes are in the log of the rank alone" in console.shown
    assert len(console.shown) < 600_000


def test_of_a_last_line_with_its_middle_left_out_the_end_is_found() -> None:
    held, console = HeldTraceback(), Lines()
    line = b"ValueError: " + b"a" * 1000 + b" the end"
    held.hold(b"Traceback (most recent call last):\n" + line + b"\nprinted later\n", b"")
    shortened = line[:100] + " … 820 characters left out … ".encode() + line[-100:]
    held.drop(f"Traceback (most recent call last):\n{shortened.decode()}", console)
    assert console.shown == b"printed later\n"


@pytest.mark.parametrize(
    "begins",
    ["multiprocessing.pool.RemoteTraceback: ", "concurrent.futures.process._RemoteTraceback:"],
)
def test_one_that_came_from_another_process_leaves_nothing_on_the_console(begins: str) -> None:
    held, console = HeldTraceback(), Lines()
    quotes = b'"""'
    told = b"Traceback (most recent call last):\n  File x\nKeyError: 1\n"
    whole = begins.encode() + b"\n" + quotes + b"\n" + told + quotes + b"\n\n" + told + b"\n"
    assert held.hold(b"before\n" + whole, b"[0] ") == b"before\n"
    held.drop(whole.decode(), console)
    assert console.shown == b""


def test_the_tracebacks_before_the_one_that_the_verdict_has_are_shown() -> None:
    held, console = HeldTraceback(), Lines()
    first = b"Traceback (most recent call last):\n  File child\nValueError: the cause\n"
    own = b"[rank0]: Traceback (most recent call last):\n[rank0]:   File train\n[rank0]: E: 1\n"
    held.hold(b"a log\n" + first + b"ending\n" + own + b"later\n", b"[0] ")
    held.drop("Traceback (most recent call last):\n  File train\nE: 1\n", console)
    shown = (first + b"ending\nlater\n").splitlines(keepends=True)
    assert console.shown == b"".join(b"[0] " + line for line in shown)
