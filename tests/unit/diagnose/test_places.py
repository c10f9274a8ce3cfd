"""Where ranks are, in a sentence, from stacks as faulthandler writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distrun.diagnose import places
from distrun.diagnose.places import Place, callee_at, grouped, place_of

LIBRARY = os.__file__.replace("os.py", "threading.py")


def stacks(*frames: tuple[str, int, str], others: str = "") -> str:
    lines = [f'  File "{file}", line {line} in {name}' for file, line, name in frames]
    return others + "\n".join(["Current thread 0x00007f (most recent call first):", *lines]) + "\n"


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text("import time\ntime.sleep(5)\ndist.all_reduce(x)\nf(g())\nx = [\n  h(\n1)]\n")
    return str(path)


@pytest.mark.parametrize(
    ("line", "call"), [(1, ""), (2, "sleep"), (3, "all_reduce"), (4, ""), (6, "h"), (99, "")]
)
def test_the_users_line_is_told_with_what_it_calls(script: str, line: int, call: str) -> None:
    assert place_of(stacks((script, line, "main"))) == Place(script, line, call)


@pytest.mark.parametrize(
    ("source", "callee"),
    [
        ("time.sleep(5)", "time.sleep"),
        ("self.queue.get()", "self.queue.get"),
        ("load(3)", "load"),
        ("rows[0].next()", "next"),
        ("f(g(x))", ""),
        ("x = 1", ""),
        ("x = (", ""),
    ],
)
def test_what_a_line_calls_is_told_as_it_is_written(
    tmp_path: Path, source: str, callee: str
) -> None:
    path = tmp_path / "line.py"
    path.write_text(source + "\n")
    assert callee_at(str(path), 1) == callee


def test_a_long_loop_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    nodes_of = places._nodes_of
    monkeypatch.setattr(places, "_nodes_of", lambda file: read.append(file) or nodes_of(file))
    script = tmp_path / "loop.py"
    script.write_text("while True:\n" + "".join(f"    poll({n})\n" for n in range(800)))
    assert places.in_waiting_loop(str(script), 400)
    assert len(read) == 1


def test_library_frames_above_the_users_line_are_left_out(script: str) -> None:
    text = stacks((LIBRARY, 9, "wait"), (script, 3, "step"), (script, 1, "main"))
    assert str(place_of(text)) == "train.py:3 (all_reduce)"


def test_a_thread_that_is_written_last_is_not_taken_for_the_one_that_was_asked(
    script: str,
) -> None:
    other = f'\nThread 0x00008f (most recent call first):\n  File "{script}", line 1 in loop\n'
    assert str(place_of(stacks((script, 2, "main")) + other)) == "train.py:2 (sleep)"


def test_without_its_source_a_line_is_told_with_the_function_in_the_library() -> None:
    text = stacks((LIBRARY, 9, "acquire"), (LIBRARY, 8, "wait"), ("/gone/train.py", 3, "step"))
    assert str(place_of(text)) == "train.py:3 (wait)"


def test_the_thread_that_took_the_signal_counts(script: str) -> None:
    other = 'Thread 0x00007e (most recent call first):\n  File "/x/other.py", line 1 in run\n\n'
    assert place_of(stacks((script, 2, "main"), others=other)) == Place(script, 2, "sleep")


def test_for_a_watchdog_thread_that_asked_the_main_thread_counts(script: str) -> None:
    bottom = (LIBRARY, 1002, "_bootstrap")
    main = f'\nThread 0x00008f (most recent call first):\n  File "{script}", line 2 in main\n'
    watchdog, other = ((script, 4, "watch"), bottom), stacks((script, 3, "work"), bottom)
    text = stacks(*watchdog, others=other.replace("Current t", "T") + "\n")
    assert place_of(text + main) == Place(script, 2, "sleep")
    assert place_of(stacks(*watchdog)) == Place(script, 4)


@pytest.mark.parametrize("text", ["", "<no Python frame>", stacks(), stacks((LIBRARY, 1, "f"))])
def test_without_a_line_of_the_users_there_is_no_place(text: str) -> None:
    assert place_of(text) is None


A, B = Place("/x/data.py", 31, "sleep"), Place("/x/train.py", 70)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({1: A, 0: B, 2: B, 3: B}, "rank 1 at data.py:31 (sleep); ranks 0, 2, 3 at train.py:70"),
        (
            {1: A} | dict.fromkeys([0, *range(2, 8)], B),
            "rank 1 at data.py:31 (sleep); 7 others at train.py:70",
        ),
        (dict.fromkeys(range(8), B), "8 ranks at train.py:70"),
        ({0: A, 1: None}, "rank 0 at data.py:31 (sleep)"),
        ({}, ""),
    ],
)
def test_ranks_at_one_place_are_told_together_the_odd_ones_first(
    places: dict[int, Place | None], said: str
) -> None:
    assert grouped(places) == said


def test_of_several_answers_of_one_thread_the_last_counts(script: str) -> None:
    head = "Stack (most recent call first):\n"
    both = "".join(f'{head}  File "{script}", line {line} in f\n' for line in (2, 3))
    assert place_of(both) == Place(script, 3, "all_reduce")
