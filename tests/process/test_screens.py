"""Screens as a person sees them, captured from tmux and compared with golden files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import SCENARIOS, wait_until

GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A tmux session with one window of a given size."""

    def __init__(self, columns: int, cwd: Path, lines: int = 24) -> None:
        self._socket = f"distrun-{uuid.uuid4().hex[:8]}"
        size = ("-x", str(columns), "-y", str(lines))
        self._tmux("new-session", "-d", *size, "-c", str(cwd), "sh")

    def _tmux(self, *words: str) -> str:
        # its own server, without the user's configuration
        command = ["tmux", "-L", self._socket, "-f", "/dev/null", *words]
        # pytest-xdist's workers have 80 COLUMNS, whatever the window is
        environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
        return done.stdout

    def type(self, line: str) -> None:
        self._tmux("send-keys", line, "Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p").rstrip() + "\n"

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[int], Terminal]]:
    opened: list[Terminal] = []

    def open_one(columns: int) -> Terminal:
        opened.append(Terminal(columns, tmp_path))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def normalised(screen: str) -> str:
    """Take out what differs from run to run, and what a busy machine adds."""
    waiting = r"(?m)^distrun: waiting \d+ s for nodes.*\n(?:(?!distrun|\[|\$).+\n)*"
    screen = re.sub(waiting, "", screen)
    screen = re.sub(r"(?m)^\$\n\Z", "", screen)  # the shell's prompt may be there already
    screen = re.sub(r"(?m)(^|ETA )\d+:\d\d\b", r"\1M:SS", screen)
    screen = re.sub(r"\d{8}-\d{6}-(\w+)-[0-9a-f]{4}", r"DATE-TIME-\1-HEX", screen)
    return re.sub(r"(done in|after) \d+\.\d s", r"\1 N.N s", screen)


@pytest.mark.parametrize("columns", [80, 200])
def test_a_run_on_a_terminal_looks_as_recorded(
    terminal: Callable[[int], Terminal], command: list[str], tmp_path: Path, columns: int
) -> None:
    window = terminal(columns)
    (tmp_path / "r.py").write_text((SCENARIOS / "prints.py").read_text())
    (tmp_path / "d").write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    (tmp_path / "d").chmod(0o755)
    window.type("clear; PS1='$ '; ./d launch --nodes 2 --nproc-per-node 2 r.py screen")
    wait_until(lambda: "ETA" in window.screen(), 40, "the status line")
    wait_until(lambda: "40%" in window.screen(), 20, "the bar in it")
    live = normalised(window.screen())
    (tmp_path / "enough").touch()
    wait_until(lambda: "recorded in" in window.screen(), 20, "the end")
    screens = f"{live}{'-' * columns}\n{normalised(window.screen())}"
    golden = GOLDEN / f"screen_{columns}.txt"
    if os.environ.get("DISTRUN_RECORD_SCREENS"):  # a person looks at what they record
        golden.write_text(screens)
    assert screens == golden.read_text()


def test_ctrl_c_on_a_terminal_stops_the_run(
    terminal: Callable[[int], Terminal], command: list[str], tmp_path: Path
) -> None:
    window = terminal(120)
    words = [*command, "launch", "--nproc-per-node", "2", str(SCENARIOS / "prints.py"), "wait"]
    window.type(f"{shlex.join(words)}; echo code=$?")
    wait_until(lambda: "ranks 2/2" in window.screen(), 40, "the ranks")
    wait_until((tmp_path / "waiting1").exists, 20)
    wait_until((tmp_path / "waiting0").exists, 20)
    window.press("C-c")
    wait_until(lambda: "code=130" in window.screen(), 30, "the end")
    assert "Traceback" not in window.screen()
    assert "INTERRUPTED: stopped by SIGINT" in window.screen()
