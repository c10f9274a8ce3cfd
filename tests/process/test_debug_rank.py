"""A person at a terminal debugs one rank of a world, while the others wait."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import only_run
from tests.terminal import Terminal

Run = Callable[..., subprocess.CompletedProcess[str]]
SCRIPT = """
import sys, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
x = 41 + rank
print("noise of", rank, "on a terminal" if sys.stdin.isatty() and sys.stdout.isatty() else "")
dist.breakpoint(rank=1)
dist.barrier()
print("went on, x =", x)
dist.destroy_process_group()
"""


@pytest.fixture
def launched(command: list[str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    (tmp_path / "train.py").write_text(SCRIPT)
    terminals: list[Terminal] = []

    def launch(*words: str) -> Terminal:
        terminals.append(Terminal([*command, "launch", *words, "train.py"], tmp_path))
        return terminals[-1]

    yield launch
    for terminal in terminals:
        terminal.kill()


def log_of(directory: Path, rank: int, node: int = 0) -> str:
    return (only_run(directory) / "logs" / f"node{node}" / f"rank{rank}.log").read_text()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_one_rank_of_two_nodes_has_the_terminal_and_goes_on(
    launched: Callable[..., Terminal], tmp_path: Path, method: str
) -> None:
    words = ("--nodes", "2", "--nproc-per-node", "1", "--start-method", method)
    terminal = launched("--debug-rank", "1", "--time-limit", "1h", *words)
    terminal.wait_for("rank 1 has the terminal")
    terminal.wait_for("the time limit of 3600 s is off")
    terminal.wait_for("noise of 1 on a terminal")
    terminal.wait_for("(Pdb) ")
    terminal.type("up\n")
    terminal.wait_for("train.py(7)")
    terminal.wait_for("(Pdb) ")
    terminal.interrupt("--KeyboardInterrupt--")
    terminal.wait_for("(Pdb) ")
    terminal.type("p x * 1000\n")
    terminal.wait_for("42000")
    terminal.type("c\n")
    terminal.wait_for("went on, x = 42")
    assert terminal.end() == 0
    assert "noise of 0" not in terminal.screen and "ranks 2/2" not in terminal.screen
    assert log_of(tmp_path, 0) == "noise of 0 \nwent on, x = 41\n"
    assert log_of(tmp_path, 1, 1) == "--- distrun: this rank has the terminal ---\n"
    assert "\x1b[2K" not in terminal.screen


def test_a_person_who_leaves_the_debugger_gets_no_advice(
    launched: Callable[..., Terminal],
) -> None:
    terminal = launched("--debug-rank", "1", "--nproc-per-node", "2")
    terminal.wait_for("(Pdb) ")
    terminal.type("\x04")
    terminal.wait_for("rank 1 on node0 failed first: BdbQuit")
    assert terminal.end() == 1
    hints = [line for line in terminal.screen.splitlines() if "hint:" in line]
    assert not [line for line in hints if "where the ranks were" not in line]


def test_another_rank_that_fails_leaves_a_sane_terminal(
    launched: Callable[..., Terminal], tmp_path: Path
) -> None:
    pytest.importorskip("readline")  # it takes the echo from the terminal
    (tmp_path / "train.py").write_text(
        "import os, time\nif os.environ['RANK'] == '1':\n    breakpoint()\n"
        "while not os.path.exists('fail'):\n    time.sleep(0.02)\nraise ValueError('of another')\n"
    )
    terminal = launched("--debug-rank", "1", "--nproc-per-node", "2")
    before = terminal.settings()
    terminal.wait_for("(Pdb) ")
    terminal.type("p 1")
    terminal.wait_for("p 1")
    assert terminal.settings() != before
    (tmp_path / "fail").touch()
    terminal.wait_for("rank 0 on node0 failed first: ValueError: of another")
    assert terminal.end(before) == 1


def test_ctrl_backslash_stops_the_run(launched: Callable[..., Terminal]) -> None:
    terminal = launched("--debug-rank", "1", "--nproc-per-node", "2", "--grace", "2")
    terminal.wait_for("(Pdb) ")
    terminal.type("\x1c")
    assert terminal.end() == 131


def test_without_the_option_the_failure_names_it(launched: Callable[..., Terminal]) -> None:
    terminal = launched("--nproc-per-node", "2")
    terminal.wait_for("failed first: BdbQuit")
    assert terminal.end() == 1
    words = " ".join(terminal.screen.split())
    assert "breakpoint() needs a terminal: --debug-rank 1 gives it to this rank" in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("2",), "--debug-rank 2: no rank 2, the ranks are 0 to 1"),
        (("-1",), "--debug-rank '-1' is not a list of ranks"),
        (("0", "--detach"), "--debug-rank and --detach exclude each other"),
        (("0", "--json"), "--debug-rank and --json exclude each other"),
        (("0", "--only-rank", "1"), "--debug-rank and --only-rank exclude each other"),
        (("0", "--fold"), "--debug-rank and --fold exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(
    distrun: Run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "train.py").write_text("")
    done = distrun("launch", "--nproc-per-node", 2, "--debug-rank", *words, "train.py")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
