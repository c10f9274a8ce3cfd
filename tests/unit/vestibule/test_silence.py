"""How long somebody has said nothing, on a clock that the test moves."""

from __future__ import annotations

import pytest

from distrun.silence import LOST_AFTER_S, TOLD_AFTER_S, Silence


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def passes(self, seconds: float, asked: Silence) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            asked.seconds()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_silence_is_told_once_and_then_lost(clock: Clock) -> None:
    silence = Silence()
    clock.passes(TOLD_AFTER_S - 1, silence)
    assert not silence.to_be_told
    clock.passes(1, silence)
    assert silence.to_be_told
    assert not silence.to_be_told
    clock.passes(LOST_AFTER_S - TOLD_AFTER_S - 1, silence)
    assert not silence.lost
    clock.passes(1, silence)
    assert silence.lost


def test_a_word_ends_a_silence_and_the_next_one_is_told_again(clock: Clock) -> None:
    silence = Silence()
    clock.passes(TOLD_AFTER_S, silence)
    assert silence.to_be_told
    silence.heard()
    clock.passes(TOLD_AFTER_S - 1, silence)
    assert not silence.to_be_told
    clock.passes(1, silence)
    assert silence.to_be_told


def test_the_time_in_which_this_process_itself_did_not_run_does_not_count(clock: Clock) -> None:
    silence = Silence()
    clock.passes(TOLD_AFTER_S - 1, silence)
    clock.now += 3600  # stopped, or asleep with its machine
    assert not silence.to_be_told
    assert not silence.lost
    clock.passes(LOST_AFTER_S, silence)
    assert silence.lost
