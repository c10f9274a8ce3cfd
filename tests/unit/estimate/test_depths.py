"""From traces of two numbers of layers to the whole model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distrun.estimate.buckets import buckets
from distrun.estimate.depths import stretched, whole
from distrun.estimate.exchange import Answer, Fault, Trace, heard, told
from distrun.estimate.work import Attention, Collective, Matmul, Peak, Work

MIB = 1 << 20


def work(layers: int) -> Work:
    return Work(
        parameters=100 + 10 * layers,
        tokens=64,
        samples="tokens",
        collectives=(
            Collective("all_gather", "shard", 8, 4096, layers, "forward"),
            Collective("all_reduce", "world", 8, 4, 1, "optimizer"),
            Collective("broadcast", "data", 8, 500 + 20 * layers, 1, "forward"),
        ),
        matmuls=(Matmul(64, 8, 8, 4 * layers + 1, "bfloat16", "forward"),),
        attention=(Attention(1, 2, 64, 64, 4, True, layers, "forward"),),
        moved_nbytes={"forward": 7 + 3 * layers},
        peaks=(
            Peak("forward", {"activations": 50 * layers, "parameters": 10 + layers}),
            Peak("backward", {"activations": 50 * layers, "temporary": 900 - 20 * layers}),
        ),
        reserved_nbytes=1000 + 40 * layers,
        notes=("a note",),
    )


def test_two_traces_give_the_whole_model() -> None:
    traces = [Trace(2, work(2)), Trace(3, work(3))]
    found, asked = whole(Answer(traces, layers=32)), work(32)
    assert set(found.collectives) == set(asked.collectives)
    assert found.matmuls == asked.matmuls and found.attention == asked.attention
    assert found.parameters == asked.parameters and found.notes == asked.notes
    assert found.moved_nbytes["forward"] == asked.moved_nbytes["forward"]
    assert found.peaks[0] == asked.peaks[0]


def test_nothing_becomes_negative_and_reserved_holds_what_is_allocated() -> None:
    found = whole(Answer([Trace(2, work(2)), Trace(3, work(3))], layers=100))
    assert found.peaks[1].nbytes["temporary"] == 0
    assert found.reserved_nbytes >= found.allocated


def test_one_trace_is_told_as_it_is() -> None:
    assert whole(Answer([Trace(0, work(5))])) == work(5)


def test_calls_that_come_with_more_layers_alone_grow_too() -> None:
    few = replace(work(2), matmuls=())
    more = replace(work(3), matmuls=(Matmul(1, 2, 3, 1, "float32", "forward"),))
    (found,) = whole(Answer([Trace(2, few), Trace(3, more)], layers=6)).matmuls
    assert found.count == 4


def test_buckets_of_the_whole_model_are_filled_anew() -> None:
    def trace(layers: int) -> Trace:
        sizes = [("f", 2 * MIB), *[("f", 10 * MIB)] * layers, ("f", 7 * MIB)]
        reduces = tuple(
            Collective("all_reduce", "data", 8, sum(sizes[i][1] for i in one), 1, "backward")
            for one in buckets(sizes)
        )
        return Trace(layers, replace(work(layers), collectives=reduces), sizes, 25 * MIB)

    found = whole(Answer([trace(2), trace(3)], layers=7)).collectives
    sent = {(c.nbytes // MIB, c.count) for c in found}
    assert sent == {(2, 1), (30, 2), (17, 1)}


@pytest.mark.parametrize(
    ("few", "more", "times", "whole_list"),
    [
        ("habcabce", "habcabcabce", 3, "h" + 5 * "abc" + "e"),
        ("hae", "haae", 4, "haaaaae"),
        ("ab", "abab", 2, "ababab"),
        ("he", "hxxe", 0, "he"),
    ],
)
def test_a_list_that_repeats_is_stretched(few: str, more: str, times: int, whole_list: str) -> None:
    assert "".join(stretched(list(few), list(more), times)) == whole_list


def test_what_the_child_tells_is_heard_as_it_was() -> None:
    answer = Answer([Trace(2, work(2), [("float32", 4)], 9)], 32, [[[2, 3], [3, 1], "bfloat16"]])
    fault = Fault('ValueError: "quoted"\u2028 and é', "/a b/train.py", 7, "do this")
    assert heard(told(answer)) == answer
    assert heard(told(fault)) == fault


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "{}", '{"answer": {}}', "null"])
def test_anything_else_is_no_answer(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        heard(text)
