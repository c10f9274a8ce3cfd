"""The replay of torch's caching allocator."""

from __future__ import annotations

import random

import pytest

from distrun.estimate.allocator import LARGE_PAGE_NBYTES, SMALL_PAGE_NBYTES, Event, reserved_nbytes

MIB = 1 << 20
PAGE, SMALL = LARGE_PAGE_NBYTES, SMALL_PAGE_NBYTES


@pytest.mark.parametrize(
    ("events", "reserved"),
    [
        ([], 0),
        ([Event(0, 1)], SMALL),
        ([Event(0, MIB)], SMALL),
        ([Event(0, MIB + 1)], PAGE),
        ([Event(0, PAGE)], PAGE),
        ([Event(0, PAGE + 1)], 2 * PAGE),
        # a free block is used again, and what is left of it too
        ([Event(0, PAGE), Event(0, 0), Event(1, 5 * MIB), Event(2, 15 * MIB)], PAGE),
        # but only by its own stream, and only by blocks of its kind
        ([Event(0, PAGE), Event(0, 0), Event(1, PAGE, "gather")], 2 * PAGE),
        ([Event(0, PAGE), Event(0, 0), Event(1, 1)], PAGE + SMALL),
        # neighbours that are free are one block
        ([Event(0, PAGE), Event(1, PAGE), Event(0, 0), Event(1, 0), Event(2, 2 * PAGE)], 2 * PAGE),
        ([Event(0, PAGE), Event(1, PAGE), Event(1, 0), Event(0, 0), Event(2, 2 * PAGE)], 2 * PAGE),
        # a hole between two blocks fits nothing larger; the free end is grown, not left
        ([Event(0, PAGE), Event(1, PAGE), Event(0, 0), Event(2, PAGE + 1)], 4 * PAGE),
        ([Event(0, PAGE), Event(1, PAGE), Event(1, 0), Event(2, PAGE + 1)], 3 * PAGE),
    ],
)
def test_the_bytes_of_a_replay(events: list[Event], reserved: int) -> None:
    assert reserved_nbytes(events) == reserved


def test_the_smallest_hole_that_fits_is_taken() -> None:
    holes = [Event(0, 40 * MIB), Event(1, 2 * MIB), Event(2, 20 * MIB), Event(3, 18 * MIB)]
    events = [*holes, Event(0, 0), Event(2, 0), Event(4, 20 * MIB), Event(5, 40 * MIB)]
    assert reserved_nbytes(events) == 80 * MIB


def test_what_is_reserved_is_never_less_than_what_was_live() -> None:
    draw = random.Random(0)
    for _ in range(50):
        events: list[Event] = []
        live: dict[int, int] = {}
        most = now = 0
        for block in range(200):
            if live and draw.random() < 0.45:
                gone = draw.choice(list(live))
                now -= live.pop(gone)
                events.append(Event(gone, 0))
            live[block] = draw.choice([1, 700, MIB, 3 * MIB, 50 * MIB]) * draw.randint(1, 3)
            events.append(Event(block, live[block], draw.choice(["main", "gather"])))
            now += live[block]
            most = max(most, now)
        assert most <= reserved_nbytes(events) <= 3 * most + 4 * PAGE
