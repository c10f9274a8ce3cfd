"""`distrun --install-completion` in a home of its own, and then the Tab key, in each shell."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_DEADLINE_S = 60.0
_LINE_START = "\x01"  # Ctrl-A
_COMPLETED = [
    ("distrun lau", "<distrun><launch>"),
    ("distrun recipes exp", "<distrun><recipes><export>"),
    ("distrun launch --hang-t", "<distrun><launch><--hang-timeout>"),
    ("distrun launch trai", "<distrun><launch><train_it.py>"),
]


class Terminal:
    """An interactive shell in a terminal.

    Args:
        shell: Its name.
        home: Its home, which is the current directory too.
    """

    def __init__(self, shell: str, home: Path) -> None:
        self.said = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(home)
            os.execvpe(shell, [shell, "-i"], {**environ(home), "TERM": "dumb"})

    def type(self, text: str) -> None:
        """Press the keys of a text."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the terminal shows a text, and forget what it has shown."""
        deadline = time.monotonic() + _DEADLINE_S
        while text not in self.said:
            left = deadline - time.monotonic()
            if not select.select([self._fd], [], [], max(left, 0))[0]:
                pytest.fail(f"waited in vain for {text!r}; it shows {self.said!r}")
            self.said += os.read(self._fd, 1 << 16).decode(errors="replace")
        self.said = ""

    def close(self) -> None:
        """End the shell."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._fd)


def environ(home: Path) -> dict[str, str]:
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": str(home), "PATH": path, "ZDOTDIR": str(home)}
    return {**os.environ, **own, "XDG_CONFIG_HOME": str(home / ".config")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with distrun in its bin, and a script."""
    program = tmp_path / "bin" / "distrun"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom distrun.cli.main import main\n\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "train_it.py").touch()
    return tmp_path


@pytest.mark.ci_cases(3)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_tab_key_completes_commands_flags_and_scripts(shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    # `;`: a shell that has one command alone becomes it, and could not be told by it any more
    installed = subprocess.run(
        [shell, "-c", "distrun --install-completion; true"],
        env=environ(home), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert f"{shell} completion installed in {home}" in installed.stdout
    terminal = Terminal(shell, home)
    try:
        terminal.type("echo re''ady\n")
        terminal.wait_for("ready")
        if shell == "zsh":
            terminal.type("distrun \t\x15")  # the first Tab loads what completes; Ctrl-U
        for typed, completed in _COMPLETED:
            terminal.type(f"{typed}\t{_LINE_START}printf '<%s>' \n")
            terminal.wait_for(completed)
    finally:
        terminal.close()


def test_python_m_distrun_completes_the_same_name(home: Path) -> None:
    line = f"{shlex.quote(sys.executable)} -m distrun --show-completion; true"
    shown = subprocess.run(
        ["bash", "-c", line], env=environ(home), capture_output=True, text=True, timeout=60
    )
    assert "_DISTRUN_COMPLETE=" in shown.stdout
    assert shown.stdout.rstrip().endswith(" distrun")
