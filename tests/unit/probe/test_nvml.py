"""The parent of the NVML reader: whatever becomes of the child, there is a snapshot."""

from __future__ import annotations

import json
import os

import pytest

from distrun.probe import nvml
from distrun.probe.gpu_processes import named
from distrun.probe.nvml import LAUNCH_DEADLINE_S, NvmlReader
from distrun.probe.snapshot import Gpu, GpuProcess, Nvml

MPS = GpuProcess(6, 30 << 20, "root", "nvidia-cuda-mps-server")
READS_ITS_PIPE = "import json, os, signal, sys; fd = json.loads(sys.argv[1])[1][1]\n"


@pytest.mark.parametrize(
    ("used_nbytes", "processes", "busy"),
    [
        (0, (), False),
        (None, None, False),
        (1 << 30, (), False),
        ((1 << 30) + 1, (), True),
        (0, (GpuProcess(7, None),), True),
        (0, (MPS,), False),
        (0, (MPS, GpuProcess(7, None)), True),
        ((1 << 30) + 1, (MPS,), True),
    ],
)
def test_a_gpu_is_busy_when_somebody_computes_on_it_or_holds_its_memory(
    used_nbytes: int | None, processes: tuple[GpuProcess, ...] | None, busy: bool
) -> None:
    assert Gpu(0, memory_used_nbytes=used_nbytes, processes=processes).busy is busy


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (
            Gpu(1, processes=(GpuProcess(42, 40 << 30, "ada", "python train.py"),)),
            "GPU 1: pid 42 (ada, python train.py, 40.0 GiB)",
        ),
        (
            Gpu(0, processes=(GpuProcess(42, None), GpuProcess(43, 1 << 29, "", "x"))),
            "GPU 0: pid 42 (not visible from here), pid 43 (x, 0.5 GiB)",
        ),
        (
            Gpu(0, processes=(MPS, GpuProcess(43, 1 << 29, "", "x"))),
            "GPU 0: pid 43 (x, 0.5 GiB)",
        ),
        (
            Gpu(2, memory_used_nbytes=3 << 30, processes=(MPS,)),
            "GPU 2: 3.0 GiB held by a process that is not visible from here",
        ),
    ],
)
def test_whoever_is_on_a_gpu_is_named_as_far_as_they_are_known(gpu: Gpu, words: str) -> None:
    assert gpu.users == words


def read_gpus(deadline_s: float = LAUNCH_DEADLINE_S) -> Nvml:
    with NvmlReader(deadline_s) as reader:
        return reader.result()


def test_a_process_is_named_by_user_and_script_without_its_arguments() -> None:
    told = [{"pid": os.getpid(), "used_nbytes": 5}], None, [{"pid": 2**22 + 1, "used_nbytes": None}]
    mine, none, foreign = named(told)
    assert none is None
    assert foreign == (GpuProcess(2**22 + 1, None),)
    assert mine is not None
    assert mine[0].user
    assert "--" not in mine[0].command
    assert mine[0].command


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("distrun.probe.nvml.ctypes.CDLL", missing)
    found = read_gpus()
    assert (found.gpus, found.problem_kind) == ((), "absent")
    assert found.problem == "no NVIDIA driver is installed"
    assert found.missing["driver_version"] == found.problem


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend that the driver's library is there, so that a child is started."""
    monkeypatch.setattr("distrun.probe.nvml.ctypes.CDLL", lambda name: None)
    return monkeypatch


@pytest.mark.parametrize(
    ("code", "problem", "kind"),
    [
        ("signal.pause()", "NVML did not answer within 0.5 s", "hang"),
        ("raise OSError('no libnvidia')", "the NVML reader ended with 1", "failed"),
        ("os._exit(3)", "the NVML reader ended with 3", "failed"),
        ("os.abort()", "the NVML reader was killed by SIGABRT", "failed"),
        ("print('[]', flush=True); os._exit(4)", "the NVML reader ended with 4", "failed"),
        ("os.write(fd, b'{\"done\"'); os._exit(5)", "the NVML reader ended with 5", "failed"),
    ],
    ids=["hangs", "raises", "exits", "crashes", "prints", "stops in a line"],
)
def test_a_reader_that_fails_is_told_and_never_waited_for(
    reader: pytest.MonkeyPatch, code: str, problem: str, kind: str
) -> None:
    reader.setattr(nvml, "_PROGRAM", READS_ITS_PIPE + code)
    assert read_gpus(0.5).gpus == ()
    found = read_gpus(0.5)
    assert (found.problem, found.problem_kind) == (problem, kind)
    assert found.missing["driver_version"] == problem


def test_what_was_told_before_a_hang_is_kept_and_the_hang_has_a_name(
    reader: pytest.MonkeyPatch,
) -> None:
    parts = [
        {"driver": {"driver_version": "580.1", "missing": {"excluded_gpus": "NotSupported"}}},
        {"gpu": {"index": 1, "uuid": "GPU-1", "missing": {"name": "NoPermission"}}},
        {"at": "nvmlDeviceGetName of GPU 2"},
    ]
    lines = "".join(json.dumps(part) + "\n" for part in parts)
    program = f"{READS_ITS_PIPE}os.write(fd, {lines.encode()!r}); signal.pause()"
    reader.setattr(nvml, "_PROGRAM", program)
    found = read_gpus(0.5)
    problem = "NVML did not answer within 0.5 s (it hangs in nvmlDeviceGetName of GPU 2)"
    assert (found.problem, found.driver_version) == (problem, "580.1")
    assert found.missing == {"excluded_gpus": "NotSupported", "cuda_driver_version": problem}
    (gpu,) = found.gpus
    assert gpu.uuid == "GPU-1"
    assert gpu.missing["name"] == "NoPermission"
    assert gpu.missing["temperature_c"] == problem


def test_the_ones_that_are_lost_are_not_present() -> None:
    found = Nvml(gpus=(Gpu(0), Gpu(1, lost="GpuIsLost"), Gpu(2)))
    assert [gpu.index for gpu in found.present] == [0, 2]
