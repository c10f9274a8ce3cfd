"""What ends a launch before it has begun."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from distrun.api.launch import prepare
from distrun.errors import MachineError
from distrun.probe import runs_disk
from distrun.spec.job import Header, Job


def test_a_run_directory_whose_disk_hangs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, runs_dir, never = tmp_path / "train.py", tmp_path / "runs", threading.Event()
    script.write_text("")
    exists = Path.exists

    def answer(path: Path, **options: bool) -> bool:  # stat() of a hung disk does not
        return never.wait() if path == runs_dir else exists(path, **options)

    monkeypatch.setattr(runs_disk, "_LIMIT_S", 0.1)
    monkeypatch.setattr(Path, "exists", answer)
    with pytest.raises(MachineError, match=r"runs' cannot be used: its disk did not answer within"):
        prepare(Job(script=str(script), runs_dir=runs_dir), {}, Header())
    never.set()
