"""The list of allocations of a trace, and the peaks read from it."""

from __future__ import annotations

from distrun.estimate.allocator import SMALL_PAGE_NBYTES
from distrun.estimate.tracer.ledger import Entry, Ledger
from distrun.estimate.work import Peak


def ledger() -> Ledger:
    """A weight, then one step: a kept and a dropped activation, a gradient, a temporary."""
    made = Ledger()
    made.entries = [
        Entry(1, 100, "forward"),  # the weight
        Entry(9, 5000, "forward"),  # garbage of the making
        Entry(9, 0, "forward"),
        Entry(2, 30, "forward"),  # kept for backward
        Entry(3, 50, "forward"),  # dropped
        Entry(3, 0, "forward"),
        Entry(4, 7, "backward"),  # the gradient
        Entry(5, 20, "backward"),
        Entry(2, 0, "backward"),
        Entry(5, 0, "backward"),
        Entry(6, 1, "optimizer"),
    ]
    made.ready = made.begin = 3
    made.kinds = {1: "parameters", 4: "gradients"}
    made.saved = {2, 3}
    return made


def test_the_peak_of_each_phase_says_what_is_live() -> None:
    assert ledger().peaks() == (
        Peak("forward", {"activations": 30, "parameters": 100, "temporary": 50}),
        Peak("backward", {"activations": 30, "gradients": 7, "parameters": 100, "temporary": 20}),
        Peak("optimizer", {"gradients": 7, "parameters": 100, "temporary": 1}),
    )


def test_a_storage_that_is_resized_counts_with_its_new_size() -> None:
    made = ledger()
    made.entries.insert(5, Entry(3, 80, "forward"))
    assert made.peaks()[0].nbytes["temporary"] == 80


def test_what_the_host_holds_is_not_on_the_gpu() -> None:
    made = ledger()
    made.hosted = {1}
    assert all("parameters" not in peak.nbytes for peak in made.peaks())


def test_what_a_pass_recomputes_is_an_activation() -> None:
    made = ledger()
    made.saved.add(5)
    assert made.peaks()[1].nbytes["activations"] == 50


def test_garbage_of_the_making_is_not_reserved() -> None:
    made = ledger()
    made.entries[1] = Entry(9, 500 << 20, "forward")
    assert made.reserved_nbytes() == SMALL_PAGE_NBYTES


def test_streams_do_not_share_what_they_have_freed() -> None:
    made = ledger()
    made.streams = {2: "all_gather"}
    assert made.reserved_nbytes() == 2 * SMALL_PAGE_NBYTES
