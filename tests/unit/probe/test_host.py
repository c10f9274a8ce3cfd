"""Cores, ports and names of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from distrun.checks.port import check_port
from distrun.errors import MachineError
from distrun.probe import nvml
from distrun.probe.host import free_port, port_problem, read_host, resolve
from distrun.probe.nvml import Gpu, Gpus, read_gpus


def test_there_is_at_least_one_core_and_no_more_than_we_may_use() -> None:
    assert 1 <= read_host().cores <= len(os.sched_getaffinity(0))


def test_a_free_port_is_no_problem() -> None:
    port = free_port()
    assert port_problem(port) == ""
    check_port(port, "")


def test_whoever_listens_on_a_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        problem = port_problem(port)
    assert problem.startswith("is in use by another process (")
    assert problem.endswith(f", pid {os.getpid()})")
    with pytest.raises(MachineError) as refused:
        check_port(port, problem)
    assert refused.value.message == f"--master-port {port} {problem}"
    assert refused.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may have every port")
def test_a_port_below_1024_is_not_said_to_be_in_use() -> None:
    assert port_problem(1) in ("", "is for root alone")


@pytest.mark.parametrize(
    ("name", "address"),
    [("localhost", "127.0.0.1"), ("10.1.2.3", "10.1.2.3"), ("no-such-host.invalid", None)],
)
def test_names_become_addresses(name: str, address: str | None) -> None:
    assert resolve(name) == address


@pytest.mark.parametrize("name", ["a..b", "x" * 80, "", "\u00fc" * 70])
def test_a_name_that_can_be_none_is_none(name: str) -> None:
    assert resolve(name) in (None, "0.0.0.0")


# --- GPUs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used_nbytes", "pids", "busy"),
    [(0, (), False), (1 << 30, (), False), ((1 << 30) + 1, (), True), (0, (7,), True)],
)
def test_a_gpu_is_busy_when_somebody_computes_on_it_or_holds_its_memory(
    used_nbytes: int, pids: tuple[int, ...], busy: bool
) -> None:
    assert Gpu(0, "NVIDIA H100", "GPU-1", used_nbytes, pids).busy is busy


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the driver's library is there."""
    monkeypatch.setattr("distrun.probe.nvml.ctypes.CDLL", lambda name: None)


def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Put another program in the place of the NVML reader."""
    path = tmp_path / "reader.py"
    path.write_text(code)
    monkeypatch.setattr(nvml, "__file__", str(path))


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("distrun.probe.nvml.ctypes.CDLL", missing)
    assert read_gpus() == Gpus((), "no NVIDIA driver is installed")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import signal; signal.pause()", "NVML did not answer within 0.5 s"),
        ("raise OSError('no libnvidia')", "the NVML reader failed: OSError: no libnvidia"),
        ("import os; os._exit(3)", "the NVML reader failed: exit code 3"),
        ("import os; os.abort()", "the NVML reader failed: exit code -6"),
        ("print('[]')", "the NVML reader failed"),
    ],
    ids=["hangs", "raises", "exits", "crashes", "says nonsense"],
)
def test_a_reader_that_fails_is_told_and_never_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, problem: str
) -> None:
    reader(monkeypatch, tmp_path, code)
    assert read_gpus(0.5).gpus == ()
    assert read_gpus(0.5).problem.startswith(problem)


@pytest.mark.usefixtures("driver")
def test_what_the_reader_prints_becomes_the_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {"index": 1, "name": "H100", "uuid": "GPU-1", "used_nbytes": 5, "pids": [7, 8]}
    answer = {"gpus": [told], "problem": "GPU 0: GPU is lost"}
    reader(monkeypatch, tmp_path, f"import json; print(json.dumps({answer!r}))")
    assert read_gpus() == Gpus((Gpu(1, "H100", "GPU-1", 5, (7, 8)),), "GPU 0: GPU is lost")
