"""The list of allocations of a trace, and the peaks read from it."""

from __future__ import annotations

from distrun.estimate.allocator import SMALL_PAGE_NBYTES
from distrun.estimate.depths import Line
from distrun.estimate.tracer.growth import grown_peaks
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


def model(layers: int) -> Ledger:
    """Layers that keep 10 bytes each, and a loss that takes 35 for a moment; then backward."""
    made = Ledger()
    made.entries = [Entry(1, 100, "forward")]
    made.ready = made.begin = 1
    made.kinds = {1: "parameters"}
    kept = range(2, 2 + layers)
    made.entries += [Entry(block, 10, "forward") for block in kept]
    made.entries += [Entry(90, 35, "forward"), Entry(90, 0, "forward")]
    for block in reversed(kept):
        made.entries += [Entry(100 + block, 8, "backward"), Entry(block, 0, "backward")]
        made.kinds[100 + block] = "gradients"
    made.entries += [Entry(200, 60, "backward"), Entry(200, 0, "backward")]
    made.saved = set(kept)
    return made


def test_each_moment_grows_on_its_own_line() -> None:
    found = grown_peaks(model(2), model(3), Line(2, 3, 32))
    assert found == model(32).peaks()
    assert model(2).peaks()[1].nbytes != model(32).peaks()[1].nbytes  # another moment


def test_traces_that_differ_in_their_passes_are_not_followed() -> None:
    other = model(3)
    other.entries.append(Entry(300, 1, "optimizer"))
    assert grown_peaks(model(2), other, Line(2, 3, 32)) is None
