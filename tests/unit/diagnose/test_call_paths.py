"""Which calls a rank is in, and which ranks are in the same ones."""

from __future__ import annotations

import os

import pytest

from distrun.diagnose.call_paths import CallPath, path_of, shared
from distrun.diagnose.places import Frame
from tests.unit.diagnose.test_places import stacks

LIBRARY = os.__file__.replace("os.py", "threading.py")
TORCH = "/x/lib/python3.11/site-packages/torch/autograd/graph.py"
MAIN, STEP = ("/me/train.py", 20, "<module>"), ("/me/train.py", 7, "step")
FIT = ("/x/site-packages/lightning/loop.py", 3, "fit")


@pytest.mark.parametrize(
    ("frames", "user", "library"),
    [
        ((STEP, MAIN), (MAIN, STEP), ()),
        (((TORCH, 9, "run"), (TORCH, 5, "backward"), MAIN), (MAIN,), ("backward", "run")),
        (((LIBRARY, 9, "wait"), STEP, FIT, MAIN), (MAIN, STEP), ("wait",)),  # a callback
        (((LIBRARY, 9, "wait"), (LIBRARY, 8, "run")), (), ("run", "wait")),
        ((), (), ()),
    ],
)
def test_the_users_calls_come_outermost_first_then_where_the_library_is(
    frames: tuple[tuple[str, int, str], ...],
    user: tuple[tuple[str, int, str], ...],
    library: tuple[str, ...],
) -> None:
    path = path_of(stacks(*frames))
    assert path.user == tuple(Frame(*frame) for frame in user)
    assert tuple(frame.function for frame in path.library) == library


@pytest.mark.parametrize("text", ["", "<no Python frame>", "Current thread", "\0\ud800" * 5])
def test_what_is_no_stack_is_an_empty_path(text: str) -> None:
    assert path_of(text) == CallPath((), ())


def test_the_fewest_ranks_come_first_and_equal_groups_by_their_first_rank() -> None:
    here, there = (CallPath((Frame("a.py", line, "f"),), ()) for line in (1, 2))
    paths = {5: there, 0: here, 1: here, 7: CallPath((), ()), 2: here}
    assert [ranks for ranks, _ in shared(paths)] == [[5], [7], [0, 1, 2]]
    assert shared({}) == []
