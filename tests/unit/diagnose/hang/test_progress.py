"""Since when a rank has made no progress."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from distrun.diagnose.hang.evidence import Call, Process, Record
from distrun.diagnose.hang.progress import Look, Progress, waited_s, waits
from distrun.diagnose.places import Frame
from tests.unit.diagnose.hang.looks import group, look

LIBRARY = os.__file__
LOOPS = """\
while True: pass
while not ready():
    n = 1
for x in data:
    use(x)
while True:
    for x in data:
        use(x)
def until(end):
    while monotonic() < end: yield
while left: left = sorted(left)[1:]
while text: text = re.sub(a, b, text)
while len(os.listdir("shards")) < n: pass
"""


def idle_s(*looks: Look, every_s: float = 5.0) -> float:
    """Return for how long a rank is idle that was looked at every few seconds."""
    progress = Progress(0.0)
    for number, each in enumerate(looks):
        progress.looked(number * every_s, each)
    return progress.witness(0, "a", (len(looks) - 1) * every_s).idle_s or 0.0


@pytest.fixture
def loops(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(LOOPS)
    return str(path)


def at(file: str, line: int, *inner: Frame) -> tuple[Frame, ...]:
    return (*inner, Frame(file, line, "wait"), Frame(file, 90, "<module>"))


def test_a_rank_that_sleeps_is_idle_from_the_first_look() -> None:
    assert idle_s(*[look(group(3, 3), cpu_s=1.0)] * 4) == 15.0


@pytest.mark.parametrize(
    "moved",
    [
        look(group(4, 3)),
        look(group(4, 4)),
        look(group(3, 3), group(0, 0, name="1")),
        look(group(3, 3), printed=1),
        look(group(3, 3), cpu_s=2.0),
        look(group(3, 3), io_nbytes=1 << 17),
        look(group(3, 3), is_traced=True),
        look(group(3, 3), frames=(Frame("/usr/lib/python3.11/pdb.py", 9, "interaction"),)),
    ],
    ids=["called", "ended", "new group", "printed", "cpu", "io", "debugger", "pdb"],
)
def test_these_are_progress(moved: Look) -> None:
    still = look(group(3, 3))
    assert idle_s(still, still, moved) == 0.0


@pytest.mark.parametrize("waiting", [{"call": Call("recv")}, {}], ids=["recv", "all_reduce"])
def test_the_time_that_a_rank_uses_while_it_waits_for_others_is_no_progress(
    waiting: dict[str, Any],
) -> None:
    counts = group(3, 3) if waiting else group(4, 3)
    spins = [look(counts, cpu_s=5.0 * n, io_nbytes=n << 30, **waiting) for n in range(4)]
    assert idle_s(*spins) == 15.0


def test_a_rank_that_runs_bytecode_does_not_wait_for_a_send_that_nobody_has_waited_for() -> None:
    works = [look(group(4, 3), moves=True, cpu_s=5.0 * n) for n in range(4)]
    assert idle_s(*works) == 0.0


def test_a_rank_that_pickles_an_object_for_its_peers_works() -> None:
    call = Call("broadcast_object_list")
    works = [look(group(3, 3), call=call, cpu_s=5.0 * n) for n in range(4)]
    assert idle_s(*works) == 0.0
    assert idle_s(*[look(group(3, 3), call=call)] * 4) == 15.0, "it waits for the object"


def test_an_old_record_of_a_wait_hides_no_work() -> None:
    works = [look(group(4, 3), age_s=5.0 * n, cpu_s=5.0 * n) for n in range(4)]
    assert idle_s(*works) == 0.0


def test_little_cpu_time_is_the_background() -> None:
    assert idle_s(*[look(group(3, 3), cpu_s=0.2 * n) for n in range(4)]) == 15.0


@pytest.mark.parametrize(
    ("line", "idle"),
    [(1, 15.0), (2, 15.0), (13, 15.0), (5, 0.0), (8, 0.0), (10, 0.0), (11, 0.0), (12, 0.0)],
    ids=["pass", "call", "files", "for", "in", "generator", "sorted", "re"],
)
def test_a_while_loop_that_only_waits_is_no_progress_and_a_for_loop_is(
    loops: str, line: int, idle: float
) -> None:
    frames = at(loops, line)
    spins = [
        look(group(3, 3), frames=frames, opcode="JUMP_BACKWARD", cpu_s=5.0 * n) for n in range(4)
    ]
    assert idle_s(*spins) == idle


def test_a_loop_that_asks_a_library_only_waits(loops: str) -> None:
    frames = at(loops, 2, Frame(LIBRARY, 7, "exists"))
    spins = [look(group(3, 3), frames=frames, moves=True, cpu_s=5.0 * n) for n in range(4)]
    assert idle_s(*spins) == 15.0


@pytest.mark.parametrize(
    "works",
    [{"opcode": "CALL"}, {"faults": 500}, {"io_nbytes": 1 << 20}, {"age_s": 3.0}],
    ids=["one long call", "new memory", "io", "holds the GIL"],
)
def test_a_rank_that_uses_cpu_time_otherwise_works(loops: str, works: dict[str, Any]) -> None:
    growing = {name: value for name, value in works.items() if name in ("faults", "io_nbytes")}
    fixed = {"opcode": "JUMP_BACKWARD", **{k: v for k, v in works.items() if k not in growing}}
    frames = at(loops, 1)
    spins = [
        look(
            group(3, 3),
            frames=frames,
            cpu_s=5.0 * n,
            **fixed,
            **{name: n * value for name, value in growing.items()},
        )
        for n in range(4)
    ]
    assert idle_s(*spins) == 0.0


def test_a_loop_over_many_lines_works(loops: str) -> None:
    Path(loops).write_text("while i < n:\n" + "    i += 1\n" * 9)
    spins = [
        look(group(3, 3), frames=at(loops, n + 2), opcode="JUMP_BACKWARD", cpu_s=5.0 * n)
        for n in range(8)
    ]
    assert idle_s(*spins) <= 10.0, "a third line begins anew"


def test_a_loop_in_another_call_is_progress(loops: str) -> None:
    calls = [at(loops, 1), at(loops, 1), (Frame(loops, 1, "other"), *at(loops, 1)[1:])]
    spins = [
        look(group(3, 3), frames=frames, opcode="JUMP_BACKWARD", cpu_s=5.0 * n)
        for n, frames in enumerate(calls)
    ]
    assert idle_s(*spins) == 0.0


def test_a_rank_without_groups_or_without_an_answer_does_not_wait() -> None:
    assert not waits(None)
    assert not waits(Record())
    assert waited_s(Progress(0.0).witness(0, "a", 1.0)) == 0.0


def test_a_rank_whose_process_cannot_be_read_is_idle() -> None:
    assert idle_s(Look(), Look(), Look(process=Process("S"))) == 10.0
