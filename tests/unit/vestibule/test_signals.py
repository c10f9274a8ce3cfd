"""Which signal repeats another, and which one is a second decision."""

from __future__ import annotations

import signal

import pytest

from distrun.signals import repeats

INT, TERM, HUP, QUIT = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT


@pytest.mark.parametrize(
    ("first", "second", "after_s", "repeated"),
    [
        (TERM, TERM, 0.05, True),  # timeout(1) signals the child and its group
        (TERM, HUP, 0.01, True),  # systemd with SendSIGHUP
        (HUP, HUP, 0.02, True),  # a terminal that is closed, and its shell
        (QUIT, QUIT, 0.1, True),
        (INT, INT, 0.01, False),  # a hurried user
        (TERM, INT, 0.01, False),
        (INT, TERM, 0.3, True),
        (TERM, TERM, 0.6, False),
        (HUP, TERM, 3.0, False),
        (signal.SIGXCPU, signal.SIGXCPU, 1.0, True),  # once a second of CPU time
        (signal.SIGXCPU, TERM, 1.0, False),
    ],
)
def test_a_signal_soon_after_the_first_is_the_same_decision(
    first: int, second: int, after_s: float, repeated: bool
) -> None:
    assert repeats(first, second, after_s) is repeated
