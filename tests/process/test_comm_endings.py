"""However a group of ranks ends: who is told what, and how it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from distrun import comm
from distrun.comm import CommError, World
from distrun.testing import RanksFailed, faults, run_ranks
from tests.conftest import wait_until

pytestmark = [pytest.mark.usefixtures("warm_ranks"), pytest.mark.timeout(60)]

TIMEOUT_S = 1.3
LATE_S = 1.6 * TIMEOUT_S
HERE = Path(__file__).name
Told = list[tuple[str, str]]


def line_marked(mark: str) -> str:
    """Return the line of this file that ends with a comment, as file:line."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))
    return f"{HERE}:{number}"


def told_by(call: Callable[[], object]) -> tuple[str, str]:
    """Return what a call raises: its class and its text."""
    try:
        call()
    except (CommError, comm.CommUsageError) as error:
        return type(error).__name__, str(error)
    return "", "it returned"


def total_of(world: World) -> tuple[int, float]:
    """Return the size of a new world, and the sum of 1, 2, 3, … over its ranks; close it."""
    with world:
        return world.world_size, world.all_reduce(torch.tensor(world.rank + 1.0)).item()


def failed_on(fn: Callable[[World], object], **options: object) -> list[tuple[int, str]]:
    """Run fn on three processes, one of which is to fail; return who failed, and how."""
    with pytest.raises(RanksFailed) as failed:
        run_ranks(fn, 3, "gloo", 30, comm_timeout_s=10, **options)  # type: ignore[arg-type]
    return [(failure.rank, failure.what) for failure in failed.value.failures]


def test_a_late_rank_is_named_with_its_line_and_rebuild_brings_all_together_again() -> None:
    def on_rank(world: World) -> tuple[Told, tuple[int, float]]:
        x = torch.ones(1)
        world.all_reduce(x)
        world.all_reduce(x)
        if world.rank == 2:
            time.sleep(LATE_S)  # the late rank is here
        told = [told_by(lambda: world.all_reduce(x)) for _ in range(2)]
        return told, total_of(world.rebuild())

    *usual, late = run_ranks(on_rank, 3, "gloo", 30, comm_timeout_s=TIMEOUT_S)
    for told, _ in usual:
        (first, text), (second, repeated) = told
        assert (first, second) == ("RankLateError", "GroupDeadError")
        assert text.startswith("rank 2 of the world has not called all_reduce #3 within 1.3 s;")
        where = text.splitlines()[1].split()
        assert " ".join(where) == (
            f"rank 2 has not called it is at {line_marked('the late rank is here')}"
        )
        assert repeated.startswith("the world is dead: rank 2 of the world has not called")
        assert "world.rebuild()" in text and "world.rebuild()" in repeated
    (first, text), (second, repeated) = late[0]
    assert (first, second) == ("GroupDeadError", "GroupDeadError")
    assert text.startswith(
        "ranks 0-1 of the world gave up waiting for all_reduce #3 of the others after 1.3 s;"
        " the group is dead\n"
    )
    assert "hint: world.rebuild() on every rank makes a new group" in text
    assert "ranks 0-1 of the world gave up" in repeated
    assert [total for _, total in (*usual, late)] == [(3, 6.0)] * 3


def test_an_unchecked_timeout_kills_the_group_says_how_to_learn_more_and_rebuild_works() -> None:
    def on_rank(world: World) -> tuple[Told, tuple[int, float]]:
        if world.rank == 1:
            time.sleep(LATE_S)
        told = [told_by(lambda: world.all_reduce(torch.ones(1))) for _ in range(2)]
        return told, total_of(world.rebuild())

    waited, late = run_ranks(on_rank, 2, "gloo", 30, comm_timeout_s=TIMEOUT_S, check=False)
    (first, text), (second, repeated) = waited[0]
    assert (first, second) == ("GroupDeadError", "GroupDeadError")
    assert text.startswith(
        "all_reduce on rank 0 of the world failed, and the group is dead: a rank did not answer"
        " in time ("
    )
    assert "world.rebuild() makes a new group; DISTRUN_COMM_CHECK=1 names the rank" in text
    assert repeated == text
    assert [kind for kind, _ in late[0]] == ["GroupDeadError"] * 2
    assert "all_reduce on rank 1 of the world failed, and the group is dead" in late[0][0][1]
    assert [total for _, total in (waited, late)] == [(2, 3.0)] * 2


def test_the_survivors_of_a_killed_rank_are_told_which_it_was_and_go_on(tmp_path: Path) -> None:
    def on_rank(world: World) -> None:
        (tmp_path / f"pid{world.rank}").write_text(str(os.getpid()))
        kind, text = told_by(lambda: world.all_reduce(torch.ones(1)))
        total = total_of(world.rebuild(ranks=[0, 2]))
        (tmp_path / f"told{world.rank}").write_text(f"{kind} {total} {text}")

    # It dies after the ranks have compared the call, in the midst of it: the hardest moment.
    assert failed_on(on_rank, faults=[faults.kill(rank=1)]) == [(1, "killed by SIGKILL")]
    pid = (tmp_path / "pid1").read_text()
    for rank in (0, 2):
        assert (tmp_path / f"told{rank}").read_text().startswith(
            f"GroupDeadError (2, 3.0) all_reduce on rank {rank} of the world failed, and the group"
            f" is dead: rank 1: its process {pid} has ended"
        )  # fmt: skip


def test_a_rebuild_that_waited_in_vain_for_a_rank_can_be_tried_again_without_it() -> None:
    def on_rank(world: World) -> tuple[tuple[str, str], tuple[int, float]] | None:
        if world.rank == 1:
            return None  # it has ended, and does not know of the rebuilding
        told = told_by(world.rebuild)
        return told, total_of(world.rebuild(ranks=[0, 2]))

    first, _, last = run_ranks(on_rank, 3, "gloo", 30, comm_timeout_s=TIMEOUT_S)
    for found in (first, last):
        assert found is not None
        (kind, text), total = found
        assert kind == "JoinError"
        assert text.startswith("1 of 3 ranks did not join within 1.3 s: rank 1\n")
        assert total == (2, 3.0)


def boards() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("distrun-*")}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")
def test_sigterm_ends_a_rank_leaves_no_memory_and_the_others_are_told(tmp_path: Path) -> None:
    before = boards()

    def on_rank(world: World) -> None:
        world.barrier()
        if world.rank == 1:
            (tmp_path / "pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGTERM)
        kind, text = told_by(lambda: world.all_reduce(torch.ones(1)))
        (tmp_path / f"told{world.rank}").write_text(f"{kind}: {text}")

    assert failed_on(on_rank) == [(1, "killed by SIGTERM")]
    gone = f"its process {(tmp_path / 'pid').read_text()} has ended"
    for rank in (0, 2):
        text = (tmp_path / f"told{rank}").read_text()
        assert text.startswith(
            "RankLeftError: rank 1 of the world left before all_reduce #2; nothing was sent\n"
        )
        (line,) = (line for line in text.splitlines() if "has left" in line)
        assert line.split("  ")[-1] == gone
    # a run of another test may be making a board just now, which it unlinks at once
    wait_until(lambda: not boards() - before, 5, "the ranks' shared memory to go")


def test_who_has_left_comes_first_in_the_table_though_another_has_not_called_yet() -> None:
    def on_rank(world: World) -> tuple[str, str]:
        if world.rank == 1:
            world.close()
        if world.rank == 2:
            time.sleep(0.5)  # it computes
        return told_by(lambda: world.all_reduce(torch.ones(1)))

    (kind, text), *_ = run_ranks(on_rank, 3, "gloo", 30, comm_timeout_s=10)
    assert (kind, text.splitlines()[0]) == (
        "RankLeftError",
        "rank 1 of the world left before all_reduce #1; nothing was sent",
    )
    assert text.splitlines()[1].split()[:4] == ["rank", "1", "has", "left"]


def test_attach_leaves_alive_a_group_that_somebody_else_made() -> None:
    def on_rank(world: World) -> tuple[float, str, float]:
        with comm.attach(world.group, timeout_s=10, check=True) as attached:
            inside = attached.all_reduce(torch.ones(1)).item()
        x = torch.ones(1)
        dist.all_reduce(x, group=world.group)
        return inside, told_by(attached.barrier)[0], x.item()

    assert run_ranks(on_rank, 2, "gloo", 30, check=False) == [(2.0, "ClosedError", 2.0)] * 2


def test_on_threads_a_world_is_rebuilt_too() -> None:
    def on_rank(world: World) -> tuple[int, float] | None:
        if world.rank == 1:
            return None
        smaller = world.rebuild(ranks=[0, 2])
        again = smaller.rebuild()
        with pytest.raises(comm.CommUsageError, match="rebuilt already"):
            smaller.rebuild()
        return again.rank, again.all_reduce(torch.ones(1)).item()

    assert run_ranks(on_rank, 3) == [(0, 2.0), None, (1, 2.0)]


def test_the_launchers_verdict_names_the_users_line_and_shows_no_frame_of_distrun(
    tmp_path: Path, distrun: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "train.py").write_text(
        "import torch\n"
        "from distrun import comm\n"
        "with comm.init(check=True) as world:\n"
        "    world.all_reduce(torch.ones(2 + world.rank))\n"
    )
    done = distrun("launch", "--nproc-per-node", 2, "train.py")
    assert done.returncode == 1
    assert "CollectiveMismatchError: the ranks of the world made different calls" in done.stderr
    assert "at train.py:4: world.all_reduce(torch.ones(2 + world.rank))" in done.stderr
    assert "distrun/comm" not in done.stderr


def test_a_world_that_outlives_its_with_leaves_no_thread_that_aborts_the_exit(
    tmp_path: Path, distrun: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "train.py").write_text(
        "import threading, torch\n"
        "from pathlib import Path\n"
        "from distrun import comm\n"
        "names = lambda: [comm.read_text() for comm in Path('/proc/self/task').glob('*/comm')]\n"
        "def threads(): return len([n for n in names() if n != 'distrun-records\\n'])\n"
        "before = threads()\n"
        "with comm.init() as world:\n"
        "    handle = world.all_reduce(torch.ones(2), async_op=True)\n"
        "    axis = world.mesh({'dp': -1})\n"
        "    handle.wait()\n"
        "    assert threads() > before\n"
        "print('left', threads() - before)\n"
    )
    done = distrun("launch", "--nproc-per-node", 2, "train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left 0") == 2, done.stdout
