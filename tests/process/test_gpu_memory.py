"""Before a restart the GPU memory of ended processes is waited for; a stand-in is the driver."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import distrun.probe.gpu_memory
from distrun.agent.gpu_memory import GpuMemory
from tests.conftest import wait_until

PROGRAM = Path(distrun.probe.gpu_memory.__file__)
Wait = Callable[..., list[tuple[str, str]]]


@pytest.mark.parametrize(
    ("fakes", "said"),
    [
        ({"FAKE_USED_MIB": 500}, ""),
        ({"FAKE_USED_MIB": 9000}, '{"held": {"0": 9437184000}, "late": false}'),
        ({"FAKE_USED_MIB": 9000, "FAKE_GPUS": 0}, ""),
        ({"FAKE_INIT": 9}, ""),
    ],
)
def test_memory_that_no_listed_process_has_is_waited_for(
    driver: Path, fakes: dict[str, int], said: str
) -> None:
    environ = {name: str(value) for name, value in {"FAKE_GPUS": 1, **fakes}.items()}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "0.5"],
        env=os.environ | {"LD_LIBRARY_PATH": str(driver)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:1] == [said][: bool(said)]
    assert not said or '"late": true' in done.stdout.splitlines()[-1]


def test_the_ranks_start_when_the_limit_is_over_and_both_is_told(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LD_LIBRARY_PATH": driver, "FAKE_GPUS": 1, "FAKE_USED_MIB": 9000}.items():
        monkeypatch.setenv(name, str(value))
    selector, told, started = selectors.DefaultSelector(), [], []

    def tell(event: str, **fields: Any) -> None:
        told.append(str(fields["message"]))

    GpuMemory(selector, tell).wait_for_drivers(lambda: started.append(True), 0.5)

    def look() -> bool:
        for key, _ in selector.select(0.1):
            key.data()
        return bool(started)

    wait_until(look, 30, "the start of the ranks")
    assert told[0] == "waiting for the memory of ended processes (GPU 0: 8.8 GiB)"
    assert told[-1].startswith("memory of ended processes is still not free")
    os.waitpid(-1, 0)


def test_a_first_attempt_waits_for_nothing() -> None:
    started: list[bool] = []
    GpuMemory(selectors.DefaultSelector(), print).wait(lambda: started.append(True), again=False)
    assert started
