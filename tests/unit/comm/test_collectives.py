"""Each collective against its meaning: at one, two and three ranks on threads, at three on gloo.

A gloo launch costs 0.3 s, so all cases share one.
"""

from __future__ import annotations

import traceback

import pytest

from distrun.comm import CollectiveMismatchError, World
from distrun.testing import run_ranks
from tests.unit.comm import group_cases, handle_cases, moving_cases, reducing_cases
from tests.unit.comm.collective_cases import Case

CASES: dict[str, Case] = {
    f"{module.__name__.rpartition('.')[2].removesuffix('_cases')}: {name.replace('_', ' ')}": case
    for module in (reducing_cases, moving_cases, group_cases, handle_cases)
    for name, case in module.CASES.items()
}
pytestmark = pytest.mark.usefixtures("warm_ranks")


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_on_threads(name: str, world_size: int) -> None:
    run_ranks(CASES[name], world_size, timeout_s=20)


def every_case(world: World) -> dict[str, str]:
    """Run all cases, one after another; return the traceback of each that failed, or ""."""
    return {name: tried(case, world) for name, case in CASES.items()}


def tried(case: Case, world: World) -> str:
    """Run a case, and bring the ranks together again if it failed on some of them."""
    error = ""
    try:
        case(world)
    except Exception:  # whatever it is, its test is to show it
        error = traceback.format_exc()
    while True:
        try:
            return "\n".join(filter(None, dict.fromkeys(world.all_gather_object(error))))
        except CollectiveMismatchError:  # another rank was still within the case
            continue


@pytest.fixture(scope="module")
def on_gloo(warm_ranks: None) -> dict[str, str]:
    return run_ranks(every_case, 3, backend="gloo", timeout_s=60, comm_timeout_s=10)[0]


@pytest.mark.parametrize("name", CASES)
def test_on_gloo(name: str, on_gloo: dict[str, str]) -> None:
    if on_gloo[name]:
        pytest.fail(on_gloo[name], pytrace=False)
