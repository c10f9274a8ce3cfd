"""The probe through pynvml's real ctypes, over a stand-in for the driver's library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import distrun.probe

Probe = Callable[..., dict[str, Any]]
QUICK_LOOK = "left out of a quick probe"
NEWER_THAN_OLD = {
    "ecc_sram_threshold_exceeded",
    *(f"fabric_{f}" for f in ("state", "status", "clique_id", "cluster_uuid")),
    *("fabric_health_mask", "fabric_health_summary", "temperature_margin_c"),
}


@pytest.fixture
def probe(driver: Path) -> Probe:
    """Run `python -m distrun.probe` and return what it says of NVML."""

    def run(*words: str, library: Path = driver, **fakes: object) -> dict[str, Any]:
        environ = os.environ | {"LD_LIBRARY_PATH": str(library)}
        done = subprocess.run(
            [sys.executable, "-m", "distrun.probe", *words],
            env=environ | {name: str(value) for name, value in fakes.items()},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        (line,) = done.stdout.splitlines()
        node = json.loads(line)
        assert node["problem"] == ""
        found: dict[str, Any] = node["nvml"]
        return found

    return run


def test_every_fact_of_a_healthy_machine_is_read(probe: Probe) -> None:
    found = probe(FAKE_GPUS=3, FAKE_NVLINKS=4, FAKE_FABRIC=3, FAKE_SWITCH=1)
    assert (found["problem"], found["missing"]) == ("", {})
    assert (found["driver_version"], found["cuda_driver_version"]) == ("580.159.03", 13000)
    assert found["excluded_gpus"] == 0
    assert [gpu["index"] for gpu in found["gpus"]] == [0, 1, 2]
    for gpu in found["gpus"]:
        assert not [field for field, value in gpu.items() if value is None]
        assert gpu["missing"] == {}
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [(0, 1), (0, 2), (1, 2)]
    for pair in found["pairs"]:
        assert not [field for field, value in pair.items() if value is None]


def test_every_function_that_the_probe_names_goes_through_ctypes(
    probe: Probe, old_driver: Path, tmp_path: Path
) -> None:
    sources = Path(distrun.probe.__file__).parent.glob("nvml_*.py")
    named = {n for s in sources for n in re.findall(r'"(nvml[A-Z]\w+)"', s.read_text())}
    log = tmp_path / "calls"
    for library in ({}, {"library": old_driver}):
        found = probe(FAKE_GPUS=2, FAKE_NVLINKS=1, FAKE_LOG=log, **library)
        assert found["problem"] == ""
    called = {re.sub(r"(_v\d|WithFlags)$", "", name) for name in log.read_text().split()}
    assert {re.sub(r"_v\d$", "", name) for name in named} == called
    assert len(named) > 35


@pytest.mark.parametrize(
    ("fakes", "field", "value"),
    [
        ({"FAKE_NAME": "NVIDIA H100 80GB HBM3 \u00fc"}, "name", "NVIDIA H100 80GB HBM3 \u00fc"),
        ({"FAKE_CAPABILITY": "1:100"}, "compute_capability", "10.0"),
        ({"FAKE_VBIOS": "96.1"}, "vbios_version", "96.1"),
        ({"FAKE_BOARD": "b0a4"}, "uuid", "GPU-00000001-b0a4"),
        ({}, "pci_id", "0000:2b:00.0"),
        ({"FAKE_MEMORY_GIB": "1:40"}, "memory_total_nbytes", 40 << 30),
        ({"FAKE_USED_MIB": "1:5"}, "memory_used_nbytes", 5 << 20),
        ({"FAKE_BUSY": "1"}, "utilization_percent", 97),
        ({"FAKE_TEMPERATURE": "1:91"}, "temperature_c", 91),
        ({}, "temperature_slowdown_c", 89),
        ({}, "temperature_max_c", 85),
        ({"FAKE_MARGIN": "1:-3"}, "temperature_margin_c", -3),
        ({"FAKE_MEMORY_TEMPERATURE": "1:97"}, "memory_temperature_c", 97),
        ({}, "memory_temperature_max_c", 95),
        ({"FAKE_POWER": "1:99"}, "power_w", 99.0),
        ({"FAKE_POWER_LIMIT": "1:500"}, "power_limit_w", 500.0),
        ({"FAKE_POWER_DEFAULT": "1:350"}, "power_default_limit_w", 350.0),
        ({"FAKE_RECOVERY": "1:2"}, "recovery_action", 2),
        ({"FAKE_MIG": "1:1"}, "mig_mode", True),
        ({"FAKE_MIG_PENDING": "1:1"}, "mig_mode_pending", True),
        ({"FAKE_COMPUTE_MODE": "1:3"}, "compute_mode", 3),
        ({"FAKE_PERSISTENCE": "1:0"}, "persistence_mode", False),
        ({"FAKE_ECC_MODE": "1:0", "FAKE_ECC_PENDING": "1:1"}, "ecc_mode", False),
        ({"FAKE_ECC_PENDING": "1:0"}, "ecc_mode_pending", False),
        ({"FAKE_ECC_VOLATILE": "1:3"}, "ecc_volatile_uncorrected", 3),
        ({"FAKE_ECC_AGGREGATE": "1:7"}, "ecc_aggregate_uncorrected", 7),
        ({"FAKE_SRAM": "1:1"}, "ecc_sram_threshold_exceeded", True),
        ({"FAKE_REMAPPED": "1:513"}, "remapped_rows_uncorrected", 513),
        ({"FAKE_REMAP_PENDING": "1:1"}, "remapped_rows_pending", True),
        ({"FAKE_REMAP_FAILURE": "1:1"}, "remapped_rows_failure", True),
        ({"FAKE_RETIRED": "1:11"}, "retired_pages", 11),
        ({"FAKE_RETIRED_PENDING": "1:1"}, "retired_pages_pending", True),
        ({"FAKE_CLOCKS": "1:0x48"}, "clock_events", 0x48),
        ({"FAKE_PCIE_WIDTH": "1:8"}, "pcie_width", 8),
        ({"FAKE_PCIE_WIDTH_MAX": "1:8"}, "pcie_width_max", 8),
        ({"FAKE_PCIE_GENERATION": "1:1"}, "pcie_generation", 1),
        ({"FAKE_PCIE_GENERATION_MAX": "1:4"}, "pcie_generation_max", 4),
        ({"FAKE_BAR1_MIB": "1:256"}, "bar1_total_nbytes", 256 << 20),
        ({}, "bar1_used_nbytes", 2 << 20),
        ({"FAKE_FABRIC": "1:2"}, "fabric_state", 2),
        ({"FAKE_FABRIC_STATUS": "1:999"}, "fabric_status", 999),
        ({"FAKE_FABRIC_CLIQUE": "1:5"}, "fabric_clique_id", 5),
        ({"FAKE_FABRIC_UUID": "1:0xab"}, "fabric_cluster_uuid", "ab" * 16),
        ({"FAKE_FABRIC_MASK": "1:0x11"}, "fabric_health_mask", 0x11),
        ({"FAKE_FABRIC_SUMMARY": "1:2"}, "fabric_health_summary", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_driver_says_of_one_gpu_is_told_of_that_one(
    probe: Probe, fakes: dict[str, str], field: str, value: object
) -> None:
    found = probe(FAKE_GPUS=2, **fakes)
    assert found["gpus"][1][field] == value
    same_for_all = ("name", "vbios_version", "memory_used_nbytes", "bar1_used_nbytes")
    if fakes and field not in same_for_all and "FAKE_BOARD" not in fakes:
        assert found["gpus"][0][field] != value


@pytest.mark.parametrize("refusal", ["NotSupported", "NoPermission"])
def test_a_fact_that_is_refused_is_missing_with_the_reason_and_the_others_are_there(
    probe: Probe, refusal: str
) -> None:
    refused = {
        "nvmlDeviceGetEccMode": ("ecc_mode", "ecc_mode_pending"),
        "nvmlDeviceGetTotalEccErrors": ("ecc_volatile_uncorrected", "ecc_aggregate_uncorrected"),
        "nvmlDeviceGetSramEccErrorStatus": ("ecc_sram_threshold_exceeded",),
        "nvmlDeviceGetRetiredPages": ("retired_pages",),
        "nvmlDeviceGetFieldValues": ("recovery_action", "memory_temperature_c"),
        "nvmlDeviceGetComputeRunningProcesses_v3": ("processes",),
        "nvmlDeviceGetUUID": (),
    }
    fake = {"NotSupported": "FAKE_NOT_SUPPORTED", "NoPermission": "FAKE_NO_PERMISSION"}[refusal]
    found = probe(FAKE_GPUS=1, **{fake: ",".join(refused)})
    (gpu,) = found["gpus"]
    fields = {field for fields in refused.values() for field in fields}
    assert {field for field, value in gpu.items() if value is None} == fields
    assert gpu["missing"] == dict.fromkeys({*fields, "uuid"}, refusal)
    assert gpu["lost"] == ""


def test_an_old_driver_lacks_functions_and_its_older_ones_are_taken(
    probe: Probe, old_driver: Path
) -> None:
    found = probe(FAKE_GPUS=1, FAKE_NVLINKS=1, FAKE_NVLINK_ERRORS=6, library=old_driver)
    (gpu,) = found["gpus"]
    assert gpu["memory_total_nbytes"] == 80 << 30
    assert gpu["clock_events"] == 1
    assert gpu["nvlinks"][0]["errors"] == {"replay": 6, "recovery": 0, "crc_flit": 0}
    assert gpu["missing"] == {
        **dict.fromkeys(NEWER_THAN_OLD, "FunctionNotFound"),
        "recovery_action": "NotSupported",
        **dict.fromkeys(
            ("processes", "graphics_processes"), "LibraryMismatch"
        ),  # pynvml's word for it, which is no NVMLError
    }


def test_a_driver_with_the_older_struct_of_the_fabric_tells_what_it_has(probe: Probe) -> None:
    (gpu,) = probe(FAKE_GPUS=1, FAKE_FABRIC=3, FAKE_FABRIC_MASK=2, FAKE_FABRIC_VERSION=2)["gpus"]
    assert (gpu["fabric_state"], gpu["fabric_health_mask"]) == (3, 2)
    assert gpu["missing"] == {"fabric_health_summary": "FunctionNotFound"}


def test_a_text_that_is_none_is_missing_and_the_rest_is_read(probe: Probe) -> None:
    (gpu,) = probe(FAKE_GPUS=1, FAKE_VBIOS="\udcff\udcfe")["gpus"]
    assert (gpu["vbios_version"], gpu["missing"]) == (None, {"vbios_version": "CorruptedText"})


def test_a_lost_gpu_does_not_hide_the_others(probe: Probe) -> None:
    found = probe(FAKE_GPUS=3, FAKE_LOST=1)
    assert [gpu["lost"] for gpu in found["gpus"]] == ["", "GpuIsLost", ""]
    assert found["gpus"][1]["missing"]["temperature_c"] == "GpuIsLost"
    assert found["gpus"][2]["missing"] == {}
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [(0, 2)]
    assert found["problem"] == ""


def test_a_gpu_that_gives_no_handle_says_why(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_UNPOWERED=0)
    assert [gpu["lost"] for gpu in found["gpus"]] == ["InsufficientPower", ""]


def test_a_gpu_that_may_not_be_opened_is_not_lost_and_not_among_ours(probe: Probe) -> None:
    found = probe(FAKE_GPUS=4, FAKE_REFUSED="1,2")
    assert [(gpu["index"], gpu["lost"]) for gpu in found["gpus"]] == [(0, ""), (3, "")]
    assert found["refused_gpus"] == [1, 2]
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [(0, 3)]
    assert (found["problem"], found["missing"]) == ("", {})


def test_a_gpu_that_is_lost_while_it_is_read_is_lost(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_LOST_LATER=0)
    lost, fine = found["gpus"]
    assert lost["lost"] == lost["missing"]["uuid"] == "GpuIsLost"
    assert (fine["lost"], fine["missing"]) == ("", {})


@pytest.mark.parametrize(
    ("call", "kept"),
    [
        ("nvmlDeviceGetCount_v2", ()),
        ("nvmlDeviceGetUUID", ("driver",)),
        ("nvmlDeviceGetNvLinkState", ("driver", "names", "health")),
        ("nvmlDeviceGetP2PStatus", ("driver", "names", "health", "links")),
    ],
)
def test_a_driver_that_hangs_half_way_is_named_and_what_came_before_is_kept(
    probe: Probe, call: str, kept: tuple[str, ...]
) -> None:
    began = time.monotonic()
    found = probe("--deadline", "1", FAKE_GPUS=2, FAKE_NVLINKS=1, FAKE_HANG_AT=call)
    assert time.monotonic() - began < 10
    assert found["problem_kind"] == "hang"
    name = re.sub(r"_v\d$", "", call)
    assert found["problem"].startswith("NVML did not answer within 1 s (it hangs in " + name)
    assert (found["driver_version"] is not None) is ("driver" in kept)
    assert (len(found["gpus"]) == 2) is ("names" in kept)
    for gpu in found["gpus"]:
        assert gpu["uuid"]
        assert (gpu["temperature_c"] is not None) is ("health" in kept)
        assert (gpu["nvlinks"] is not None) is ("links" in kept)
        for field, value in gpu.items():
            assert value is not None or gpu["missing"][field] == found["problem"]
    assert found["pairs"] == []


@pytest.mark.parametrize(
    ("fakes", "kind", "problem"),
    [
        ({"FAKE_INIT": 9}, "not_loaded", "the NVIDIA driver is installed and not loaded"),
        ({"FAKE_INIT": 18}, "mismatch", "are of different versions (LibRmVersionMismatch)"),
        ({"FAKE_INIT": 999}, "failed", "NVML cannot be used: Unknown"),
        ({"FAKE_INIT": 4711}, "failed", "NVML cannot be used: NVML error 4711"),
        ({"FAKE_HANG": 1}, "hang", "it hangs in nvmlInit of the driver"),
        (
            {"FAKE_CRASH_AT": "nvmlDeviceGetName"},
            "failed",
            "was killed by SIGABRT in nvmlDeviceGetName",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_a_driver_that_does_not_answer_says_why(
    probe: Probe, fakes: dict[str, object], kind: str, problem: str
) -> None:
    found = probe("--deadline", "2", FAKE_GPUS=1, **fakes)
    assert found["problem_kind"] == kind
    assert problem in found["problem"]
    for field in ("driver_version", "cuda_driver_version", "excluded_gpus"):
        assert found[field] is not None or found["missing"][field] == found["problem"]


def test_a_container_without_libcuda_has_the_gpus_and_says_what_is_missing(probe: Probe) -> None:
    found = probe(FAKE_GPUS=1, FAKE_CUDA=0)
    assert (found["cuda_driver_version"], len(found["gpus"])) == (None, 1)
    assert found["missing"] == {"cuda_driver_version": "LibraryNotFound"}


def test_links_are_counted_between_the_gpus_that_they_join(probe: Probe) -> None:
    found = probe(FAKE_GPUS=3, FAKE_NVLINKS=6, FAKE_NVLINK_DOWN="2:0", FAKE_NVLINK_ERRORS="1:9")
    down = [[link for link in gpu["nvlinks"] if not link["active"]] for gpu in found["gpus"]]
    assert [len(links) for links in down] == [0, 0, 1]
    assert (down[2][0]["link"], down[2][0]["remote_pci_id"]) == (0, "")
    up = found["gpus"][2]["nvlinks"][1]
    assert (up["remote_pci_id"], up["remote_type"]) == ("0000:2b:00.0", "gpu")
    assert found["gpus"][1]["nvlinks"][0]["errors"] == {"receive_errors": 9}
    assert [pair["nvlinks"] for pair in found["pairs"]] == [3, 2, 3]


def test_links_to_switches_count_as_far_as_both_gpus_have_them(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_NVLINKS=18, FAKE_SWITCH=1, FAKE_NVLINK_DOWN="1:4")
    assert {link["remote_type"] for link in found["gpus"][0]["nvlinks"]} == {"switch"}
    assert [pair["nvlinks"] for pair in found["pairs"]] == [17]


@pytest.mark.parametrize(
    ("hidden", "p2p_nvlink", "counted"),
    [
        ("nvmlDeviceGetNvLinkRemotePciInfo_v2", 5, 18),
        ("nvmlDeviceGetNvLinkRemoteDeviceType", 0, 18),
        ("nvmlDeviceGetNvLinkRemotePciInfo_v2,nvmlDeviceGetNvLinkRemoteDeviceType", 0, 18),
        ("nvmlDeviceGetNvLinkRemotePciInfo_v2,nvmlDeviceGetNvLinkRemoteDeviceType", 5, 0),
    ],
)
def test_links_to_switches_that_a_virtual_machine_hides_count_if_nvlink_joins_the_gpus(
    probe: Probe, hidden: str, p2p_nvlink: int, counted: int
) -> None:
    fakes = {"FAKE_SWITCH": 1, "FAKE_NOT_SUPPORTED": hidden, "FAKE_P2P_NVLINK": p2p_nvlink}
    (pair,) = probe(FAKE_GPUS=2, FAKE_NVLINKS=18, **fakes)["pairs"]
    assert (pair["p2p_nvlink"], pair["nvlinks"]) == (p2p_nvlink, counted)


def test_a_gpu_without_nvlink_has_none_and_nothing_is_missing(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_TOPOLOGY=40, FAKE_P2P=5)
    assert [(gpu["nvlinks"], gpu["missing"]) for gpu in found["gpus"]] == [([], {})] * 2
    (pair,) = found["pairs"]
    assert (pair["topology"], pair["p2p_read"], pair["p2p_write"]) == (40, 5, 5)
    assert (pair["nvlinks"], pair["p2p_nvlink"]) == (0, 5)


def test_whoever_computes_on_a_gpu_is_named(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_BUSY=1, FAKE_PID=os.getpid())
    assert found["gpus"][0]["processes"] == []
    (process,) = found["gpus"][1]["processes"]
    assert (process["pid"], process["used_nbytes"]) == (os.getpid(), 40 << 30)
    assert process["user"] == psutil.Process().username()
    assert process["command"].startswith(Path(psutil.Process().cmdline()[0]).name)


def test_a_desktop_draws_on_a_gpu_and_does_not_make_it_busy(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_DESKTOP=f"1:{os.getpid()}")
    assert [gpu["processes"] for gpu in found["gpus"]] == [[], []]
    assert found["gpus"][0]["graphics_processes"] == []
    (process,) = found["gpus"][1]["graphics_processes"]
    assert (process["pid"], process["used_nbytes"]) == (os.getpid(), 650 << 20)
    assert process["user"] == psutil.Process().username()


def test_a_client_of_mps_is_on_the_gpu_and_nobody_is_told_twice(probe: Probe) -> None:
    found = probe(FAKE_GPUS=2, FAKE_BUSY="1", FAKE_PID=4194301, FAKE_MPS_CLIENT="1:4194302")
    pids = [[process["pid"] for process in gpu["processes"]] for gpu in found["gpus"]]
    assert pids == [[], [4194301, 4194302]]


def test_without_mps_the_others_are_told(probe: Probe) -> None:
    call = "nvmlDeviceGetMPSComputeRunningProcesses_v3"
    (gpu,) = probe(FAKE_GPUS=1, FAKE_BUSY="0", FAKE_NOT_SUPPORTED=call)["gpus"]
    assert [process["pid"] for process in gpu["processes"]] == [4242]
    assert gpu["missing"] == {}


def test_a_quick_look_leaves_out_what_a_launch_can_do_without(probe: Probe, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    found = probe("--quick", FAKE_GPUS=2, FAKE_NVLINKS=18, FAKE_LOG=log)
    assert "NvLink" not in log.read_text()
    assert found["pairs"] == []
    (gpu, _) = found["gpus"]
    assert gpu["missing"]["nvlinks"] == gpu["missing"]["fabric_state"] == QUICK_LOOK
    assert gpu["temperature_c"] is not None


def test_nvml_is_left_alone_when_nobody_wants_gpus(probe: Probe, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    found = probe("--no-gpus", FAKE_GPUS=2, FAKE_LOG=log)
    assert not log.exists()
    assert (found["gpus"], found["problem_kind"]) == ([], "not_asked")


def test_the_child_in_a_hanging_driver_dies_with_a_probe_that_is_killed(
    driver: Path, tmp_path: Path, no_process_left: str
) -> None:
    log = tmp_path / "calls"
    fakes = {"LD_LIBRARY_PATH": str(driver), "FAKE_HANG": "1", "FAKE_LOG": str(log)}
    words = [sys.executable, "-m", "distrun.probe", "--deadline", "60"]
    with subprocess.Popen(words, env=os.environ | fakes, stdout=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 20
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # the clock only paces the asking
        assert log.exists()
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
    child.wait(5)
