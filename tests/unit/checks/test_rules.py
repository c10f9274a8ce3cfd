"""Each rule has a snapshot that breaks it, and one that holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.checks.required import require_runs_dir
from distrun.errors import MachineError, UsageError, require_supported_system
from distrun.probe.runs_disk import runs_dir_problem


@pytest.mark.parametrize("name", ["linux", "darwin"])
def test_linux_and_macos_are_fine(name: str) -> None:
    require_supported_system(name)


@pytest.mark.parametrize("name", ["win32", "cygwin", "emscripten"])
def test_other_systems_are_refused_by_name(name: str) -> None:
    with pytest.raises(MachineError, match=f"distrun does not run on {name}") as refused:
        require_supported_system(name)
    assert "WSL 2" in refused.value.hint


@pytest.mark.parametrize("place", [".", "runs", "a/b/c/runs", "my runs'\n"])
def test_a_runs_dir_that_can_be_made_is_fine_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for runs_dir in (Path(place), tmp_path / place):
        require_runs_dir(runs_dir, runs_dir_problem(runs_dir))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("file", "is not a directory"),
        ("file/runs", "is not a directory"),
        ("broken-link/runs", "is not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_runs_dir_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("broken-link").symlink_to("file")
    with pytest.raises(UsageError) as refused:
        require_runs_dir(Path(place), runs_dir_problem(Path(place)))
    assert refused.value.message.startswith(f"--runs-dir {place!r}")
    assert problem in refused.value.message
    assert refused.value.hint == "--runs-dir names another place"
