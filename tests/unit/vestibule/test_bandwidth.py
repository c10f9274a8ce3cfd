"""The bandwidths against what nccl-tests publishes, in numbers that are written out.

Of doc/PERFORMANCE.md and, for the ops that it leaves out, of the factors in src/*.cu:
https://github.com/NVIDIA/nccl-tests.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from distrun.bandwidth import DEFINITIONS, algbw, busbw, wire

RANKS = (2, 3, 8, 64)
TWICE = ("1", "4/3", "7/4", "63/32")
ALL_BUT_ONE = ("1/2", "2/3", "7/8", "63/64")
ONE = ("1", "1", "1", "1")
PUBLISHED = {
    "all_reduce": TWICE,
    "all_gather": ALL_BUT_ONE,
    "reduce_scatter": ALL_BUT_ONE,
    "all_to_all": ALL_BUT_ONE,
    "gather": ALL_BUT_ONE,
    "scatter": ALL_BUT_ONE,
    "broadcast": ONE,
    "reduce": ONE,
    "sendrecv": ONE,
    "pingpong": ONE,  # not in nccl-tests: one message over one wire
}
CASES = [
    (op, n, Fraction(f)) for op, row in PUBLISHED.items() for n, f in zip(RANKS, row, strict=True)
]


def test_every_op_is_in_the_published_table() -> None:
    assert set(PUBLISHED) == set(DEFINITIONS)


@pytest.mark.parametrize(("op", "n", "factor"), CASES)
def test_busbw_is_algbw_times_the_published_factor(op: str, n: int, factor: Fraction) -> None:
    assert DEFINITIONS[op].busbw_factor(n) == pytest.approx(float(factor), rel=1e-12)
    # 3 GB in half a second are 6 GB/s.
    assert busbw(op, 3_000_000_000, 0.5, n) == pytest.approx(float(6 * 10**9 * factor), rel=1e-12)


@pytest.mark.parametrize(
    ("nbytes", "time_s", "rate"),
    [(1, 1.0, 1.0), (8, 2e-6, 4e6), (10**9, 0.1, 1e10), (2**30, 1.0, 1_073_741_824.0)],
)
def test_algbw_is_size_over_time_in_bytes_a_second(nbytes: int, time_s: float, rate: float) -> None:
    assert algbw(nbytes, time_s) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "k", "share"),
    [
        (2, 1, "0"),  # nothing leaves a lone node
        (2, 2, "1"),  # a rank a node: the NIC carries what a ring's link does
        (3, 3, "1"),
        (8, 2, "1/7"),
        (16, 2, "1/15"),
        (64, 8, "1/9"),
    ],
)
def test_a_nic_carries_k_minus_1_of_n_minus_1_parts_of_busbw(n: int, k: int, share: str) -> None:
    assert wire(7e9, n, k) == pytest.approx(7e9 * float(Fraction(share)), rel=1e-12)


@pytest.mark.parametrize("op", DEFINITIONS)
def test_an_op_says_in_words_what_its_size_and_its_factor_are(op: str) -> None:
    words = {TWICE: "2(n-1)/n", ALL_BUT_ONE: "(n-1)/n", ONE: "1"}
    assert DEFINITIONS[op].formula == words[PUBLISHED[op]]
    assert "bytes" in DEFINITIONS[op].size
    divides = op in ("all_gather", "reduce_scatter", "all_to_all", "gather", "scatter")
    assert DEFINITIONS[op].divides is divides
