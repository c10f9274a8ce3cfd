"""The pytest plugin: `@pytest.mark.ranks(2, 4)` runs a test on 2 and on 4 ranks.

The test's body runs on every rank, with its `world` as an argument:

    @pytest.mark.ranks(2, 4, backend=["threads", "gloo"])
    def test_mean(world):
        assert world.all_reduce(torch.ones(1), "mean") == 1

Other fixtures are made once, in pytest's own process, and passed to every rank. torch is not
imported until such a test runs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

_BACKENDS = ("threads", "gloo", "nccl")
_KEYWORDS = ("backend", "timeout_s", "comm_timeout_s", "check", "faults")


@dataclass(frozen=True)
class Case:
    """One world size, on one backend."""

    world_size: int
    backend: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.world_size}"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "ranks(*world_sizes, backend='threads', timeout_s=60, comm_timeout_s=None, check=True,"
        " faults=()): run the test on every rank of worlds of these sizes, on these backends;"
        " the rank's `world` is an argument",
    )


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Case:
    """The world of the rank that runs the test: a `distrun.comm.World`."""
    if request.node.get_closest_marker("ranks") is None:
        pytest.fail("the argument `world` needs @pytest.mark.ranks(2, …)", pytrace=False)
    case: Case = request.param
    return case


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each world size and backend."""
    marker = metafunc.definition.get_closest_marker("ranks")
    if marker is None:
        return
    if "world" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: a test with @pytest.mark.ranks must take `world`"
        )
    asked = marker.kwargs.get("backend", "threads")
    backends = [asked] if isinstance(asked, str) else list(asked)
    wrong = [
        *(f"{name}=…" for name in marker.kwargs if name not in _KEYWORDS),
        *(repr(n) for n in marker.args if not isinstance(n, int) or n < 1),
        *(f"backend={name!r}" for name in backends if name not in _BACKENDS),
    ]
    if wrong:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: @pytest.mark.ranks does not take {', '.join(wrong)};"
            f" it takes world sizes, {', '.join(_KEYWORDS)}"
        )
    cases = [Case(n, backend) for backend in backends for n in marker.args or (2,)]
    metafunc.parametrize("world", cases, ids=str, indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marked test that pytest does not parametrize: it would run on no rank."""
    is_marked = isinstance(item, pytest.Function) and item.get_closest_marker("ranks") is not None
    if is_marked and _case(item) is None:
        pytest.fail(
            "@pytest.mark.ranks works on functions and plain classes, not in unittest.TestCase",
            pytrace=False,
        )


def _case(item: pytest.Item) -> Case | None:
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("world") if callspec else None
    return case if isinstance(case, Case) else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Run the test's function on every rank."""
    marker = pyfuncitem.get_closest_marker("ranks")
    case = _case(pyfuncitem)
    if marker is not None and case is not None:
        _skip_without_gpus(case)
        options = {k: v for k, v in marker.kwargs.items() if k != "backend"}
        pyfuncitem.obj = functools.partial(
            _on_ranks,
            pyfuncitem.obj,
            case,
            options,
            pyfuncitem.get_closest_marker("xfail") is not None,
        )
    return (yield)


def _on_ranks(
    test: Any, case: Case, options: dict[str, Any], xfails: bool, **arguments: Any
) -> None:
    from distrun.testing.failure import RanksFailed
    from distrun.testing.ranks import run_ranks

    del arguments["world"]
    body = functools.partial(_call, test, arguments)
    failed, first, outcomes = "", None, []
    try:
        outcomes = run_ranks(body, case.world_size, case.backend, **options)
    except RanksFailed as error:
        failed, first = str(error), error.first.error
    if isinstance(first, Exception) and xfails:
        raise first  # the marker may name its type
    if failed:
        pytest.fail(failed, pytrace=False)  # it contains every rank's traceback
    _skip_or_xfail(outcomes)


def _call(test: Any, arguments: dict[str, Any], world: Any) -> tuple[str, str]:
    """Run a test's body on one rank; return ("skip" or "xfail" or "", why)."""
    from distrun.testing.plan import run_to_its_end

    try:
        result = run_to_its_end(test, world=world, **arguments)
    except pytest.skip.Exception as skipped:
        return "skip", str(skipped)
    except pytest.xfail.Exception as xfailed:
        return "xfail", str(xfailed)
    if result is not None:
        pytest.fail(f"the test returned {result!r:.80}: did you mean assert?", pytrace=False)
    return "", ""


def _skip_or_xfail(outcomes: list[tuple[str, str]]) -> None:
    """Skip or xfail the whole test if all ranks asked for it."""
    kinds = [kind for kind, _ in outcomes]
    if len(set(kinds)) > 1:
        told = ", ".join(f"rank {rank}: {kind or 'passed'}" for rank, kind in enumerate(kinds))
        pytest.fail(f"the ranks disagree: {told}", pytrace=False)
    if kinds[0] == "skip":
        pytest.skip(outcomes[0][1])
    if kinds[0] == "xfail":
        pytest.xfail(outcomes[0][1])


def _skip_without_gpus(case: Case) -> None:
    if case.backend != "nccl":
        return
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < case.world_size:
        pytest.skip(f"nccl needs {case.world_size} GPUs, there are {gpus}")


def pytest_unconfigure() -> None:
    """End the server that ranks were forked from, if it was started."""
    if warm := sys.modules.get("distrun.testing.warm"):
        warm.stop_server()
