"""The recorded snapshots are what the probe says today, and hold nothing of a real machine."""

from __future__ import annotations

import getpass
import shutil
import socket
from pathlib import Path

import pytest

from distrun.probe.snapshot import Node
from distrun.spec.snapshot import read_snapshots
from tests.fakes.driver import has_real_driver
from tests.snapshots import record

FOLDER = Path(record.__file__).parent
NAMES = sorted(scenario.__name__ for scenario in record.SCENARIOS)


def test_there_is_a_file_for_each_scenario_and_no_other() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.json")) == NAMES


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the stand-in")
@pytest.mark.skipif(has_real_driver(), reason="a VM without NVML cannot be recorded here")
def test_recording_them_again_changes_nothing(tmp_path: Path) -> None:
    record.record(tmp_path)
    for name in NAMES:
        again, kept = tmp_path / f"{name}.json", FOLDER / f"{name}.json"
        assert again.read_text() == kept.read_text(), f"run tests/snapshots/record.py: {name}"


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_read_back(name: str) -> None:
    nodes = read_snapshots(FOLDER / f"{name}.json", Node)
    assert [node.problem for node in nodes] == [""] * len(nodes)
    assert len({node.name for node in nodes}) == len(nodes)


@pytest.mark.parametrize("name", NAMES)
def test_they_hold_nothing_of_the_machine_that_recorded_them(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text()
    for own in {socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())}:
        assert f'"{own}"' not in text
        assert f"{own}/" not in text
