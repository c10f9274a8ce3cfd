"""Bad input is refused by name, with the value, the limit and the cure, before anything is sent."""

from __future__ import annotations

import pytest
import torch

from distrun.comm import CommError, CommUsageError, World
from distrun.testing import RanksFailed, run_ranks
from tests.unit.comm import refused_calls
from tests.unit.comm.collective_cases import refusal
from tests.unit.comm.refused_calls import CALLS

pytestmark = pytest.mark.usefixtures("warm_ranks")
Answer = tuple[str, str]


def answer(world: World, name: str) -> Answer:
    """Return the message and the hint of a refusal; the group has to be of use after it."""
    try:
        error = refusal(lambda: refused_calls.CALLS[name].call(world))
        found = error.message, error.hint
        assert str(error) == "\n  hint: ".join(filter(None, found))
    except Exception as error:  # whatever it is, the test is to show it
        found = f"{type(error).__name__}: {error}", ""
    assert world.all_reduce(torch.ones(1)).item() == world.world_size
    return found


def check(name: str, rank: int, found: Answer) -> None:
    wanted = CALLS[name]
    assert found[0].startswith(wanted.message.replace("<rank>", str(rank)))
    if wanted.hint:
        assert found[1] == wanted.hint


@pytest.mark.parametrize("name", CALLS)
def test_on_threads(name: str) -> None:
    for rank, found in enumerate(run_ranks(lambda world: answer(world, name))):
        check(name, rank, found)


def every_answer(world: World) -> dict[str, Answer]:
    return {name: answer(world, name) for name in refused_calls.CALLS}  # as the ranks import it


@pytest.fixture(scope="module")
def on_gloo(warm_ranks: None) -> list[dict[str, Answer]]:
    return run_ranks(every_answer, backend="gloo")


@pytest.mark.parametrize("name", CALLS)
def test_on_gloo(name: str, on_gloo: list[dict[str, Answer]]) -> None:
    for rank, found in enumerate(on_gloo):
        check(name, rank, found[name])


# --- how a refusal comes out of run_ranks ----------------------------------------------


@pytest.mark.parametrize("backend", ["threads", "gloo"])
def test_a_refusal_arrives_as_the_exception_that_it_was(backend: str) -> None:
    def wrong(world: World) -> None:
        world.all_reduce(torch.ones(2, dtype=torch.int64), "mean")

    with pytest.raises(RanksFailed) as failed:
        run_ranks(wrong, backend=backend)
    error = failed.value.first.error
    assert type(error) is CommUsageError
    assert isinstance(error, ValueError)
    assert error.message == 'op="mean" of torch.int64 is not defined'
    assert error.hint == (
        'the mean of integers is not an integer: pass x.float(), or use op="sum" and divide'
    )
    assert str(error) in str(failed.value)
    assert {failure.rank for failure in failed.value.failures} == {0, 1}


@pytest.mark.parametrize("backend", ["threads", "gloo"])
def test_a_refusal_on_one_rank_ends_the_others_with_an_error_of_their_own(backend: str) -> None:
    def one_is_wrong(world: World) -> None:
        world.all_gather(torch.ones(2), dim=1 if world.rank == 1 else 0)

    with pytest.raises(RanksFailed) as failed:
        run_ranks(one_is_wrong, 3, backend=backend, timeout_s=20)
    assert failed.value.first.rank == 1
    assert type(failed.value.first.error) is CommUsageError
    others = [failure.error for failure in failed.value.failures[1:]]
    assert len(others) == 2
    for error in others:
        assert isinstance(error, CommError)
        assert "rank 1" in str(error)
        assert "dim=1 is out of range" in str(error), "it says why rank 1 has left"
