"""One broken GPU for each rule about GPUs."""

from __future__ import annotations

from dataclasses import replace

from distrun.probe.snapshot import Gpu, GpuProcess, NvLink, Nvml, Xid
from tests.unit.checks.bases import NO_DRIVER, h100, with_field
from tests.unit.checks.cases import FAIL, INFO, LAPTOP, NODE, WARN, Case, Unread

GPU3 = "0.nvml.gpus.3."
_PYTHON = GpuProcess(4242, 40 << 30, "ada", "python train.py")
_UNSEEN = GpuProcess(77, None)
_MPS = GpuProcess(910, 30 << 20, "root", "nvidia-cuda-mps-server")
_BLENDER = GpuProcess(901, 3 << 30, "ada", "blender")
_DESKTOP = GpuProcess(900, 650 << 20, "root", "Xorg")
_XORG = GpuProcess(900, 4 << 20, "root", "Xorg")
_ACTIVE = with_field(NODE, GPU3 + "utilization_percent", 97)
_NO_NVLINK = with_field(NODE, "0.nvml.gpus", tuple(replace(h100(n), nvlinks=()) for n in range(8)))
_ALL_DOWN = tuple(
    replace(h100(n), nvlinks=tuple(replace(link, active=False) for link in h100(n).nvlinks or ()))
    for n in range(8)
)
_RTX = tuple(
    Gpu(n, name="NVIDIA GeForce RTX 3090",
        nvlinks=tuple(NvLink(link, True, f"0000:{1 - n}", "gpu") for link in range(4)))
    for n in range(3)
)  # fmt: skip
_NO_BRIDGE = tuple(NvLink(link, False) for link in range(4))
_4090 = replace(
    h100(0), name="NVIDIA GeForce RTX 4090", memory_total_nbytes=24 << 30, nvlinks=(),
    fabric_state=0,
)  # fmt: skip
_WORKSTATION = with_field(
    with_field(NODE, "0.nvml.gpus", (_4090, replace(_4090, index=1))),
    "0.nvml.pairs",
    (replace(NODE[0].nvml.pairs[0], nvlinks=0),),
)
_FAR = tuple(replace(pair, nvlinks=0) for pair in NODE[0].nvml.pairs)
_WITH_XID = (
    Xid(79, "0000:4d:00.0", 600.0, "NVRM: Xid (PCI:0000:4d:00): 79, GPU has fallen off the bus"),
)
_OF_MIG = (
    Xid(94, "0000:3b:00.0", 60, "NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, Contained", "GPU-I:05"),
)
_OF_SWITCH, _FATAL_OF_SWITCH = (
    (Xid(code, "0000:84:00.0", 60, f"SXid (PCI:0000:84:00.0): {code}, {text}", of_switch=True),)
    for code, text in ((12028, "Non-fatal, Link 46"), (20034, "Fatal, Link 30"))
)
_APP_XIDS = tuple(Xid(31, "0000:4d:00.0", age, "MMU fault") for age in (3600.0, 120.0))
_PAIRS = NODE[0].nvml.pairs
_HOT_MAX = with_field(NODE, GPU3 + "temperature_max_c", 92)
_NO_LIBCUDA = replace(
    NODE[0].nvml,
    cuda_driver_version=None,
    missing={"cuda_driver_version": "LibraryNotFound"},
)
_NO_THRESHOLDS = with_field(NODE, "0.nvml.gpus.3", replace(
    h100(3), temperature_c=88, temperature_slowdown_c=None, temperature_max_c=None,
))  # fmt: skip
_OLDER_CUDA = with_field(NODE, "0.nvml.cuda_driver_version", None)

GPU_CASES = (
    Case("gpu.driver", "0.nvml", NO_DRIVER, FAIL, "no NVIDIA driver"),
    Case("gpu.driver", "0.nvml", Nvml("did not answer within 10 s", "hang"), FAIL, "within 10 s"),
    Case("gpu.driver", "0.nvml", Nvml("is not loaded", "not_loaded"), INFO, "not loaded", LAPTOP),
    Case("gpu.count", "0.nvml.gpus", NODE[0].nvml.gpus[:7], FAIL, "7 usable GPUs", NODE,
         {"nproc_per_node": 8}),
    Case("gpu.count", "0.nvml.gpus", (), FAIL, "no usable GPUs", NODE, {"uses_gpus": True}),
    Case("gpu.count", "0.nvml", replace(NODE[0].nvml, gpus=(), refused_gpus=(0, 1)), FAIL,
         "no usable GPUs; 2 more may not be opened"),
    Case("gpu.count", GPU3 + "lost", "GpuIsLost", FAIL, "7 usable GPUs"),
    Case("gpu.count", "0.host.environ", {"CUDA_VISIBLE_DEVICES": "0,1"}, FAIL,
         "2 usable GPUs (CUDA_VISIBLE_DEVICES=0,1)"),
    Case("gpu.count", "0.host.environ", {"CUDA_VISIBLE_DEVICES": ""}, FAIL, "no usable GPUs"),
    Case("gpu.count", "0.host.environ", {"CUDA_VISIBLE_DEVICES": "0,9,1,2,3,4,5,6,7"}, FAIL,
         "1 usable GPU (", NODE),
    Case("gpu.count", "0.host.environ", {"CUDA_VISIBLE_DEVICES": "GPU-00000002,MIG-7,-1,3"}, FAIL,
         "2 usable GPUs ("),
    Case("gpu.lost", GPU3 + "lost", "GpuIsLost", FAIL, "gives no answer: GpuIsLost"),
    Case("gpu.lost", GPU3 + "lost", "InsufficientPower", FAIL, "answer: InsufficientPower"),
    Case("gpu.excluded", "0.nvml.excluded_gpus", 1, WARN, "1 GPU excluded"),
    Case("gpu.recovery", GPU3 + "recovery_action", 1, FAIL, "reset the GPU"),
    Case("gpu.recovery", GPU3 + "recovery_action", 4, FAIL, "drain the GPU and reset it"),
    Case("gpu.recovery", GPU3 + "recovery_action", 99, FAIL, "unknown action 99"),
    Case("gpu.cuda", "0.nvml.cuda_driver_version", 12080, FAIL, "runs CUDA 12.8"),
    Case("gpu.cuda", "0.nvml.driver_version", "575.57.08", FAIL, "driver 575.57.08", _OLDER_CUDA),
    Case("gpu.cuda", "0.nvml", _NO_LIBCUDA, FAIL, "libcuda.so.1 is missing"),
    Case("gpu.cuda", "0.software.torch_cuda", "13.1", WARN, "runs CUDA 13.0"),
    Case("gpu.cuda", "0.software.torch_cuda", "14.0", FAIL, "runs CUDA 13.0"),
    Case("gpu.capability", GPU3 + "compute_capability", "8.0", WARN, "1 × NVIDIA H100 80GB HBM3"
         " (8.0)"),
    Case("gpu.mig", GPU3 + "mig_mode_pending", True, WARN, "MIG goes on at the next reset"),
    Case("gpu.mig", "0.nvml.gpus.3", replace(h100(3), mig_mode=True, mig_mode_pending=True), FAIL,
         "MIG on, off on other GPUs"),
    Case("gpu.mig", "0.nvml.gpus", (replace(h100(0), mig_mode=True, mig_mode_pending=True),), WARN,
         "MIG on"),
    Case("gpu.compute_mode", GPU3 + "compute_mode", 2, FAIL, "prohibited"),
    Case("gpu.compute_mode", GPU3 + "compute_mode", 3, WARN, "exclusive"),
    Case("gpu.compute_mode", GPU3 + "compute_mode", 3, FAIL, "pid 4242 uses it",
         with_field(NODE, GPU3 + "processes", (_PYTHON,))),
    Case("gpu.compute_mode", GPU3 + "compute_mode", 3, INFO, "exclusive, through MPS",
         with_field(NODE, GPU3 + "processes", (_MPS, _PYTHON))),
    Case("gpu.compute_mode", GPU3 + "compute_mode", 3, WARN, "pid 77 uses it (not visible",
         with_field(NODE, GPU3 + "processes", (_UNSEEN,))),
    Case("gpu.persistence", GPU3 + "persistence_mode", False, WARN, "off"),
    Case("gpu.ecc.mode", "0.nvml.gpus.3", replace(h100(3), ecc_mode=False, ecc_mode_pending=False),
         WARN, "ECC off"),
    Case("gpu.ecc.mode", GPU3 + "ecc_mode_pending", False, WARN, "ECC goes off"),
    Case("gpu.ecc.uncorrected", GPU3 + "ecc_volatile_uncorrected", 3, FAIL,
         "3 uncorrectable since"),
    Case("gpu.ecc.uncorrected", GPU3 + "ecc_aggregate_uncorrected", 2, WARN, "2 uncorrectable in"),
    Case("gpu.ecc.sram", GPU3 + "ecc_sram_threshold_exceeded", True, FAIL, "threshold exceeded"),
    Case("gpu.remap.failure", GPU3 + "remapped_rows_failure", True, FAIL, "remapping failed"),
    Case("gpu.remap.pending", GPU3 + "remapped_rows_pending", True, WARN, "pending remapping"),
    Case("gpu.remap.count", GPU3 + "remapped_rows_uncorrected", 513, FAIL, "513 rows"),
    Case("gpu.retired_pages", GPU3 + "retired_pages_pending", True, FAIL, "pending retirement"),
    Case("gpu.retired_pages", GPU3 + "retired_pages", 12, WARN, "12 pages retired"),
    Case("gpu.xid", "0.host.xids", _WITH_XID, FAIL, "Xid 79 10 min ago: GPU has fallen"),
    Case("gpu.xid", "0.host.xids", _APP_XIDS, WARN, "Xid 31 2 times, last 2 min ago: MMU fault"),
    Case("gpu.xid", "0.host.xids", _OF_MIG, WARN, "Xid 94 1 min ago: Contained"),
    Case("gpu.xid", "0.host.xids", _OF_SWITCH, WARN, "SXid 12028 1 min ago: Non-fatal"),
    Case("gpu.xid", "0.host.xids", _FATAL_OF_SWITCH, FAIL, "SXid 20034 1 min ago: Fatal"),
    Case("gpu.temperature", GPU3 + "temperature_c", 89, FAIL, "89 °C"),
    Case("gpu.temperature", GPU3 + "temperature_c", 89, FAIL, "89 °C", _HOT_MAX),
    Case("gpu.temperature", GPU3 + "temperature_c", 86, FAIL, "86 °C"),
    Case("gpu.temperature", GPU3 + "temperature_c", 84, WARN, "84 °C"),
    Case("gpu.temperature", GPU3 + "temperature_margin_c", 3, WARN, "3 °C below where it slows",
         _NO_THRESHOLDS),
    Case("gpu.temperature", GPU3 + "temperature_margin_c", 5, WARN, "5 °C below where it slows",
         with_field(NODE, GPU3 + "temperature_c", None)),
    Case("gpu.temperature", GPU3 + "memory_temperature_c", 96, FAIL, "memory 96 °C"),
    Case("gpu.clocks.hardware", GPU3 + "clock_events", 0x08 | 0x40, FAIL,
         "hardware thermal slowdown, hardware slowdown"),
    Case("gpu.clocks.hardware", GPU3 + "clock_events", 0x80, FAIL, "power brake"),
    Case("gpu.clocks.software", GPU3 + "clock_events", 0x20, WARN, "software thermal slowdown"),
    Case("gpu.clocks.software", GPU3 + "clock_events", 0x02, INFO, "application clocks"),
    Case("gpu.power_limit", GPU3 + "power_limit_w", 500.0, WARN, "limited to 500 W"),
    Case("gpu.pcie.width", GPU3 + "pcie_width", 8, WARN, "PCIe x8"),
    Case("gpu.pcie.width", "0.nvml.gpus", (replace(h100(0), nvlinks=(), pcie_width=8),), WARN,
         "PCIe x8"),
    Case("gpu.pcie.width", GPU3 + "pcie_width", 8, WARN, "PCIe x8", _NO_NVLINK),
    Case("gpu.pcie.width", "0.nvml.gpus.1.pcie_width", 8, WARN, "PCIe x8", _WORKSTATION),
    Case("gpu.pcie.width", "0.nvml.gpus.0.pcie_width", 8, INFO, "PCIe x8",
         with_field(with_field(_WORKSTATION, "0.nvml.gpus.1.pcie_width", 8),
                    "0.nvml.gpus.1.pcie_width_max", 8)),
    Case("gpu.pcie.generation", GPU3 + "pcie_generation", 3, WARN, "gen 3 at 97 % load", _ACTIVE),
    Case("gpu.nvlink.count", GPU3 + "nvlinks.7.active", False, FAIL, "17 NVLinks up (down: 7)"),
    Case("gpu.nvlink.count", GPU3 + "nvlinks", (), FAIL, "0 NVLinks up"),
    Case("gpu.nvlink.count", "0.nvml.gpus.2.nvlinks", _NO_BRIDGE, INFO, "no NVLink bridge",
         with_field(NODE, "0.nvml.gpus", _RTX)),
    Case("gpu.nvlink.count", "0.nvml.gpus.2.nvlinks.3.active", False, FAIL, "(down: 3)",
         with_field(NODE, "0.nvml.gpus", _RTX)),
    Case("gpu.nvlink.errors", GPU3 + "nvlinks.7", NvLink(7, True, errors={"crc_flit": 16}), WARN,
         "link 7: 16 crc flit"),
    Case("gpu.nvlink.errors", GPU3 + "nvlinks", (NvLink(7, True, errors={"crc_flit": 99}),) * 4,
         WARN, "99 crc flit and 1 more"),
    Case("gpu.nvlink.errors", GPU3 + "nvlinks.7", NvLink(7, True, errors={
        "link_recovery_failed": 1}), WARN, "link 7: 1 link recovery failed"),
    Case("gpu.topology", "0.nvml.pairs", _FAR, WARN,
         "16 of 28 pairs across the sockets (SYS): 0-4, 0-5, 0-6, 0-7 and 12 more"),
    Case("gpu.topology", "0.nvml.pairs", _FAR[3:7], WARN,
         "4 of 4 pairs across the sockets (SYS): 0-4, 0-5, 0-6, 0-7"),
    Case("gpu.topology", "0.nvml.pairs", _FAR[3:4], INFO,
         "1 of 1 pairs across the sockets (SYS): 0-4", NODE, {"nproc_per_node": 1}),
    Case("gpu.p2p", "0.nvml.pairs.0.p2p_read", 1, WARN,
         "1 of 28 pairs without P2P (chipset not supported): 0-1"),
    Case("gpu.p2p", "0.nvml.pairs", tuple(replace(p, p2p_read=5) for p in _PAIRS[:4]), WARN,
         "4 of 4 pairs without P2P (not supported): 0-1, 0-2, 0-3, 0-4"),
    Case("gpu.p2p", "0.nvml.pairs", tuple(replace(p, p2p_read=2) for p in _PAIRS[:5]), INFO,
         "5 of 5 pairs without P2P (GPU not supported): 0-1, 0-2, 0-3, 0-4 and 1 more", NODE,
         {"nproc_per_node": 1}),
    Case("gpu.p2p", "0.nvml.pairs.0.p2p_write", 4, WARN, "disabled by a driver setting"),
    Case("gpu.p2p", "0.nvml.pairs.0.p2p_read", 1, INFO, "(chipset not supported): 0-1",
         _WORKSTATION),
    Case("gpu.fabric", GPU3 + "fabric_state", 2, FAIL, "in progress"),
    Case("gpu.fabric", GPU3 + "fabric_status", 999, FAIL, "NVML error 999"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_mask", 0b01_10_01_10_10, FAIL,
         "route unhealthy"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_mask", 0b01_10_10_10_01, WARN,
         "degraded bandwidth"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_mask", 0x5AA, FAIL, "too few NVLinks"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_mask", 0b01_01_10_01_10, WARN,
         "route recovery in progress, access timeout recovery in progress"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_summary", 2, FAIL, "unhealthy"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_summary", 3, WARN, "limited capacity"),
    Case("gpu.fabric.health", "0.nvml.gpus.3",
         replace(h100(3), fabric_health_mask=0x1A9, fabric_health_summary=2), FAIL,
         "degraded bandwidth, unhealthy"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_mask", 0x61AA, WARN, "in no partition"),
    Case("gpu.fabric.health", GPU3 + "fabric_health_mask", 0x91AA, WARN, "no contact"),
    Case("gpu.memory", GPU3 + "memory_used_nbytes", 20 << 30, WARN,
         "20.0 GiB of 80.0 GiB used by a process that is not visible"),
    Case("gpu.memory", GPU3 + "memory_used_nbytes", 20 << 30, WARN, "19.4 GiB of 80.0 GiB used",
         with_field(NODE, GPU3 + "graphics_processes", (_DESKTOP,))),
    Case("gpu.processes", GPU3 + "graphics_processes", (_DESKTOP, _BLENDER), WARN,
         "pid 901 (ada, blender, 3.0 GiB)"),
    Case("gpu.processes", GPU3 + "processes", (_UNSEEN,) * 3, WARN, "pid 77 (not visible from"
         " here), pid 77 (not visible from here), pid 77 (not visible from here)"),
    Case("gpu.processes", GPU3 + "processes", (_UNSEEN,) * 4, WARN, " and 1 more"),
    Case("gpu.processes", GPU3 + "processes", (_PYTHON, _UNSEEN), WARN,
         "pid 4242 (ada, python train.py, 40.0 GiB), pid 77"),
    Case("gpu.bar1", GPU3 + "bar1_total_nbytes", 256 << 20, WARN, "256 MiB"),
)  # fmt: skip

SILENT_ON_GPUS = (
    ("gpu.retired_pages", GPU3 + "retired_pages", 9, NODE),
    ("gpu.clocks.hardware", GPU3 + "clock_events", 0x1 | 0x4 | 0x10 | 0x100, NODE),
    ("gpu.clocks.software", GPU3 + "clock_events", 0x1 | 0x4 | 0x8 | 0x40, NODE),
    ("gpu.temperature", GPU3 + "memory_temperature_c", 95, NODE),
    ("gpu.temperature", GPU3 + "temperature_margin_c", 3, NODE),
    ("gpu.temperature", GPU3 + "temperature_margin_c", 6, _NO_THRESHOLDS),
    ("gpu.temperature", GPU3 + "temperature_margin_c", 0, _NO_THRESHOLDS),
    ("gpu.temperature", GPU3 + "temperature_margin_c", -4, _NO_THRESHOLDS),
    ("gpu.pcie.generation", GPU3 + "pcie_generation", 1, NODE),
    ("gpu.pcie.generation", GPU3 + "utilization_percent", 97, NODE),
    ("gpu.fabric.health", GPU3 + "fabric_health_summary", None, NODE),
    ("gpu.fabric.health", GPU3 + "fabric_health_mask", None, NODE),
    ("gpu.fabric.health", GPU3 + "fabric_health_mask", 0x51AA, NODE),
    ("gpu.ecc.mode", "0.nvml.gpus", (Gpu(0, name="GeForce RTX 4090", ecc_mode=False),), NODE),
    ("gpu.ecc.mode", "0.nvml.gpus", (Gpu(0, name="NVIDIA RTX A6000", ecc_mode=False),), NODE),
    ("gpu.memory", GPU3 + "memory_used_nbytes", 50 << 30,
     with_field(NODE, GPU3 + "processes", (_PYTHON,))),
    ("gpu.processes", GPU3 + "processes", (_XORG,), NODE),
    ("gpu.processes", GPU3 + "graphics_processes", (_DESKTOP,), NODE),
    ("gpu.memory", "0.nvml.gpus.0.memory_used_nbytes", 700 << 20,
     with_field(_WORKSTATION, "0.nvml.gpus.0.graphics_processes", (_DESKTOP,))),
    ("gpu.processes", GPU3 + "processes", (_MPS,), NODE),
    ("gpu.nvlink.errors", GPU3 + "nvlinks.7", NvLink(7, True, errors={"retry_blocks": 99}), NODE),
    ("gpu.nvlink.count", "0.nvml.gpus.3.nvlinks", (), with_field(_NO_NVLINK, GPU3 + "uuid", "")),
    ("gpu.nvlink.count", "0.nvml.gpus", _ALL_DOWN[:1], NODE),
    ("gpu.nvlink.count", "0.nvml.gpus", tuple(replace(g, mig_mode=True) for g in _ALL_DOWN), NODE),
    ("gpu.nvlink.count", "0.nvml.gpus",
     tuple(replace(gpu, name="NVIDIA H100 PCIe") for gpu in _ALL_DOWN), NODE),
    ("gpu.topology", "0.nvml.pairs.0.topology", 50, NODE),
    ("gpu.bar1", GPU3 + "bar1_total_nbytes", 256 << 20, with_field(NODE, "0.host.infiniband", ())),
    ("gpu.cuda", "0.nvml.driver_version", "550.54.15", NODE),
    ("gpu.cuda", "0.software.torch_cuda", "12.6", NODE),
    ("gpu.count", "0.host.environ", {"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"}, NODE),
    ("gpu.driver", "0.nvml", Nvml("GPUs were not asked for", "not_asked"), LAPTOP),
    ("gpu.fabric", GPU3 + "fabric_state", 0, NODE),
    ("gpu.fabric.health", GPU3 + "fabric_state", 0,
     with_field(NODE, GPU3 + "fabric_health_summary", 2)),
    ("gpu.xid", "0.host.xids", None, LAPTOP),
)  # fmt: skip
"""Rule, field, value, base: near a fault, and none."""

UNREAD_ON_GPUS = (
    Unread("gpu.excluded", "0.nvml.excluded_gpus"),
    Unread("gpu.recovery", GPU3 + "recovery_action"),
    Unread("gpu.cuda", "0.nvml.driver_version"),
    Unread("gpu.cuda", "0.nvml.cuda_driver_version"),
    Unread("gpu.capability", GPU3 + "compute_capability"),
    Unread("gpu.mig", GPU3 + "mig_mode"),
    Unread("gpu.compute_mode", GPU3 + "compute_mode"),
    Unread("gpu.persistence", GPU3 + "persistence_mode"),
    Unread("gpu.ecc.mode", GPU3 + "ecc_mode"),
    Unread("gpu.ecc.uncorrected", GPU3 + "ecc_volatile_uncorrected"),
    Unread("gpu.ecc.uncorrected", GPU3 + "ecc_aggregate_uncorrected"),
    Unread("gpu.ecc.sram", GPU3 + "ecc_sram_threshold_exceeded"),
    Unread("gpu.remap.failure", GPU3 + "remapped_rows_failure"),
    Unread("gpu.remap.pending", GPU3 + "remapped_rows_pending"),
    Unread("gpu.remap.count", GPU3 + "remapped_rows_uncorrected"),
    Unread("gpu.retired_pages", GPU3 + "retired_pages"),
    Unread("gpu.xid", "0.host.xids"),
    Unread(
        "gpu.temperature",
        GPU3 + "temperature_c",
        with_field(NODE, GPU3 + "temperature_margin_c", None),
    ),
    Unread(
        "gpu.temperature",
        GPU3 + "temperature_slowdown_c",
        with_field(NODE, GPU3 + "temperature_margin_c", -4),
    ),
    Unread("gpu.temperature", GPU3 + "memory_temperature_c"),
    Unread("gpu.temperature", GPU3 + "memory_temperature_max_c"),
    Unread("gpu.clocks.hardware", GPU3 + "clock_events"),
    Unread("gpu.clocks.software", GPU3 + "clock_events"),
    Unread("gpu.power_limit", GPU3 + "power_default_limit_w"),
    Unread("gpu.pcie.width", GPU3 + "pcie_width_max"),
    Unread("gpu.pcie.generation", GPU3 + "utilization_percent"),
    Unread("gpu.nvlink.count", GPU3 + "nvlinks"),
    Unread("gpu.nvlink.errors", GPU3 + "nvlinks"),
    Unread("gpu.topology", "0.nvml.pairs.0.topology"),
    Unread("gpu.p2p", "0.nvml.pairs.0.p2p_write"),
    Unread("gpu.fabric", GPU3 + "fabric_state"),
    Unread("gpu.fabric", GPU3 + "fabric_status"),
    Unread("gpu.memory", GPU3 + "memory_used_nbytes"),
    Unread("gpu.processes", GPU3 + "processes"),
    Unread("gpu.bar1", GPU3 + "bar1_total_nbytes"),
)
