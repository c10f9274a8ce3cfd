"""The line that starts a module of distrun on another machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from distrun.nodes.boot import line_for_sh


@pytest.mark.parametrize("python", ["~/my venv/python", "~/$(touch owned)/python"])
def test_a_home_that_no_shell_has_replaced_is_the_one_there(tmp_path: Path, python: str) -> None:
    program = tmp_path / python[2:]
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho started\n")
    program.chmod(0o755)
    line = line_for_sh("distrun.probe.program", (), python)
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("started\n", "")
    assert not (tmp_path / "owned").exists()
