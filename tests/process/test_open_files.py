"""The limit of open files: distrun raises its own, that of the ranks is the launcher's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FAKES = Path(__file__).parents[1] / "fakes"
SCRIPT = """
import os, resource
print("limit", os.environ["RANK"], resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
pytestmark = pytest.mark.timeout(120)


def launch(limit: str, command: list[str], cwd: Path, *words: str) -> tuple[int, str, str]:
    (cwd / "train.py").write_text(SCRIPT)
    done = subprocess.run(
        ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *command, "launch", *words, "train.py"],
        cwd=cwd,
        env={**os.environ, "PATH": f"{FAKES / 'ssh'}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "where", [("--nodes", "2"), ("--hosts", "localhost,127.0.0.1")], ids=["here", "hosts"]
)
def test_ranks_have_the_limit_of_the_launcher(
    command: list[str], tmp_path: Path, where: tuple[str, ...]
) -> None:
    words = (*where, "--nproc-per-node", "1", "--no-check", "--no-prefix")
    code, out, err = launch("-Sn 777", command, tmp_path, *words)
    assert code == 0, err
    assert sorted(out.splitlines()) == ["limit 0 777", "limit 1 777"]


def test_a_run_that_needs_more_files_is_refused_before_it_begins(
    command: list[str], tmp_path: Path
) -> None:
    words = ("--nodes", "4", "--nproc-per-node", "8", "--no-check")
    code, out, err = launch("-Sn 100", command, tmp_path, *words)
    assert code == 3, err
    assert "4 nodes with 32 ranks need 112 open files here, and this user's limit is 100" in err
    assert "ulimit -Sn 112" in err
    assert not out
    assert not list(tmp_path.glob("runs/*"))
