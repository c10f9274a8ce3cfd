"""The screens of `distrun check`, captured from tmux, beside golden files."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.process.test_screens import GOLDEN, Terminal

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"
pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


@pytest.fixture
def terminal(tmp_path: Path, command: list[str]) -> Iterator[Callable[[int, int], Terminal]]:
    """Opens windows of a given size, where `d` is distrun."""
    (tmp_path / "d").write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    (tmp_path / "d").chmod(0o755)
    for snapshot in SNAPSHOTS.glob("*.json"):
        shutil.copy(snapshot, tmp_path)
    opened: list[Terminal] = []

    def open_one(columns: int, lines: int) -> Terminal:
        opened.append(Terminal(columns, tmp_path, lines))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def agrees(screen: str, name: str) -> bool:
    golden = GOLDEN / name
    if os.environ.get("DISTRUN_RECORD_SCREENS"):  # a person looks at what they record
        golden.write_text(screen)
    return screen == golden.read_text()


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("snapshot", ["healthy_8xh100", "one_lost_gpu", "mixed_drivers"])
def test_a_recorded_machine_looks_as_recorded(
    terminal: Callable[[int, int], Terminal], snapshot: str, columns: int
) -> None:
    window = terminal(columns, 60)
    window.type(f"clear; PS1='$ '; ./d check --from {snapshot}.json; echo code=$?")
    wait_until(lambda: "\ncode=" in window.screen(), 40, "the end")
    assert agrees(window.screen(), f"check_{snapshot}_{columns}.txt")


@pytest.mark.parametrize("columns", [80, 200])
def test_a_live_screen_shows_every_gpu_and_leaves_the_terminal_as_it_was(
    terminal: Callable[[int, int], Terminal],
    machine: Callable[..., Mapping[str, str]],
    columns: int,
) -> None:
    environ = machine(FAKE_GPUS=4, FAKE_BUSY="1", FAKE_PID=4194303, FAKE_LOST="2")
    own = {name: environ[name] for name in environ if name.startswith(("FAKE_", "LD_LIB"))}
    words = shlex.join(f"{name}={value}" for name, value in own.items())
    window = terminal(columns, 24)
    window.type(f"clear; PS1='$ '; env {words} ./d check --watch; echo code=$?")
    wait_until(lambda: "Ctrl-C ends" in window.screen(), 40, "the first frame")
    lines = window.screen().splitlines()
    assert "GPU" in lines[3]
    live = "\n".join(line.rstrip() for line in lines[3:8]) + "\n"
    window.press("C-c")
    wait_until(lambda: "code=130" in window.screen(), 20, "the end")
    assert "Ctrl-C ends" not in window.screen()
    assert "Traceback" not in window.screen()
    assert agrees(live, f"check_watch_{columns}.txt")
