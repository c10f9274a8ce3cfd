"""One node of four that differs, for each rule that compares them."""

from __future__ import annotations

from dataclasses import replace

from distrun.probe.snapshot import InfinibandPort, Reach
from tests.unit.checks.bases import NO_DRIVER, h100, with_field
from tests.unit.checks.cases import FAIL, INFO, NODES, WARN, Case, Unread
from tests.unit.checks.host_cases import ROCE

N2 = "2."
_HOST2 = N2 + "host."
_GPUS = NODES[2].nvml.gpus
_PORTS = NODES[2].host.infiniband
_HDR = tuple(replace(port, rate="200 Gb/sec (4X HDR)") for port in _PORTS)
_JUMBO_ROCE = ROCE
for index in range(4):
    _JUMBO_ROCE = with_field(_JUMBO_ROCE, f"{index}.host.infiniband", ROCE[0].host.infiniband)
_BESIDE_IB = NODES
for index in range(4):
    _ports = (*_PORTS, replace(ROCE[0].host.infiniband[0], device="mlx5_an0"))
    _BESIDE_IB = with_field(_BESIDE_IB, f"{index}.host.infiniband", _ports)
_BLOCKED = Reach("node2", "node0", "10.0.0.10", 29500, "timed out")
_DOMAIN = NODES
for index in range(4):
    gpus = tuple(replace(gpu, fabric_cluster_uuid="ab" * 16) for gpu in _GPUS)
    _DOMAIN = with_field(_DOMAIN, f"{index}.nvml.gpus", gpus)
_RINGS = NODES
for index in range(4):
    _RINGS = with_field(_RINGS, f"{index}.host.environ", {"NCCL_ALGO": "Ring"})
_NAMED = NODES
for index in range(4):
    _NAMED = with_field(_NAMED, f"{index}.host.environ", {"NCCL_SOCKET_IFNAME": "eth0"})


def _all(**fields: object) -> tuple[object, ...]:
    return tuple(replace(gpu, **fields) for gpu in _GPUS)  # type: ignore[arg-type]


NODES_CASES = (
    Case("nodes.unreachable", N2 + "problem", "ssh: connect to host node2 port 22: refused", FAIL,
         "port 22: refused", NODES),
    Case("nodes.reach", N2 + "reaches.0", _BLOCKED, FAIL,
         "node2 cannot reach node0, rendezvous port 10.0.0.10:29500: timed out", NODES),
    Case("nodes.reach", N2 + "reaches.1", replace(_BLOCKED, port=41234), FAIL,
         "node2 cannot reach node0, 10.0.0.10:41234: timed out", NODES),
    Case("nodes.torch", N2 + "software.torch", "2.12.1+cu130", FAIL,
         "3 of 4 nodes run torch 2.13.0+cu130; node2 runs 2.12.1+cu130", NODES),
    Case("nodes.nccl", N2 + "software.nccl", "2.27.5", FAIL,
         "3 of 4 nodes run NCCL 2.28.9; node2 runs 2.27.5", NODES),
    Case("nodes.python", N2 + "software.python", "3.11.9", WARN,
         "3 of 4 nodes run Python 3.12.7; node2 runs 3.11.9", NODES),
    Case("nodes.distrun", N2 + "software.distrun", "0.9.0", WARN,
         "3 of 4 nodes run distrun 0.1.0; node2 runs 0.9.0", NODES),
    Case("nodes.kernel", _HOST2 + "kernel", "5.15.0-91-generic", WARN,
         "3 of 4 nodes run kernel 6.8.0-60-generic; node2 runs 5.15.0-91-generic", NODES),
    Case("nodes.driver", N2 + "nvml.driver_version", "575.57.08", WARN,
         "3 of 4 nodes run driver 580.159.03; node2 runs 575.57.08", NODES),
    Case("nodes.gpu.count", N2 + "nvml.gpus", _GPUS[:7], FAIL,
         "3 of 4 nodes have 8 GPUs; node2 has 7 GPUs", NODES),
    Case("nodes.gpu.count", N2 + "nvml", NO_DRIVER, FAIL,
         "3 of 4 nodes have 8 GPUs; node2 has no GPUs", NODES),
    Case("nodes.gpu.count", N2 + "nvml.gpus.3.lost", "GpuIsLost", FAIL,
         "3 of 4 nodes have 8 GPUs; node2 has 7 GPUs", NODES),
    Case("nodes.gpu.model", N2 + "nvml.gpus.3.name", "NVIDIA H100 PCIe", WARN,
         "3 of 4 nodes have NVIDIA H100 80GB HBM3; node2 has NVIDIA H100 80GB HBM3 + NVIDIA H100"
         " PCIe", NODES),
    Case("nodes.gpu.memory", N2 + "nvml.gpus", _all(memory_total_nbytes=40 << 30), WARN,
         "3 of 4 nodes have GPUs of 80 GiB; node2 has 40 GiB", NODES),
    Case("nodes.gpu.vbios", N2 + "nvml.gpus.3.vbios_version", "97.00", WARN,
         "node2 has 96.00.99.00.01 and 97.00", NODES),
    Case("nodes.gpu.ecc", N2 + "nvml.gpus.3.ecc_mode", False, WARN,
         "3 of 4 nodes have ECC on; node2 has off and on", NODES),
    Case("nodes.gpu.power_limit", N2 + "nvml.gpus.3.power_limit_w", 500.0, WARN,
         "3 of 4 nodes have a power limit of 700 W; node2 has 500 W and 700 W", NODES),
    Case("nodes.topology", N2 + "nvml.pairs.0.nvlinks", 0, WARN,
         "3 of 4 nodes have all pairs by NV18; node2 has pairs 0-1 by NODE, other pairs by NV18",
         NODES),
    Case("nodes.fabric", N2 + "nvml.gpus", _all(fabric_cluster_uuid="ab" * 16, fabric_clique_id=7),
         WARN, "3 of 4 nodes have clique 0; node2 has 7", _DOMAIN),
    Case("nodes.fabric", "0.nvml.gpus.3.fabric_clique_id", 7, WARN, "its GPUs are in 2 cliques",
         _DOMAIN[:1]),
    Case("nodes.fabric", N2 + "nvml.gpus", _all(fabric_cluster_uuid="cd" * 16), INFO,
         "2 NVLink domains: node0, node1, node3; node2", _DOMAIN),
    Case("nodes.infiniband.count", _HOST2 + "infiniband", _PORTS[:7], FAIL,
         "3 of 4 nodes have 8 active InfiniBand ports; node2 has 7 active InfiniBand ports", NODES),
    Case("nodes.infiniband.count", _HOST2 + "infiniband", (), FAIL, "no active InfiniBand ports",
         NODES),
    Case("nodes.infiniband.rate", _HOST2 + "infiniband", _HDR, WARN,
         "node2 has 200 Gb/sec (4X HDR)", NODES),
    Case("nodes.mtu", _HOST2 + "nics.0.mtu", 1500, WARN,
         "3 of 4 nodes have MTU 9000; node2 has 1500", NODES),
    Case("nodes.mtu", _HOST2 + "nics.0.mtu", 1500, FAIL,
         "3 of 4 nodes have MTU 9000; node2 has 1500", _JUMBO_ROCE),
    Case("nodes.mtu", _HOST2 + "nics.0.mtu", 1500, WARN, "node2 has 1500", _BESIDE_IB),
    Case("nodes.nic.speed", _HOST2 + "nics.0.speed_mbps", 1000, WARN,
         "3 of 4 nodes have a network of 100 Gb/s; node2 has 1 Gb/s", NODES),
    Case("nodes.environ", _HOST2 + "environ", {"NCCL_ALGO": "Tree"}, FAIL,
         "3 of 4 nodes have NCCL_ALGO=Ring; node2 has NCCL_ALGO=Tree", _RINGS),
    Case("nodes.environ", _HOST2 + "environ", {}, FAIL, "node2 has NCCL_ALGO unset", _RINGS),
    Case("nodes.environ", _HOST2 + "environ", {"NCCL_IB_TIMEOUT": "23"}, WARN,
         "3 of 4 nodes have NCCL_IB_TIMEOUT unset; node2 has NCCL_IB_TIMEOUT=23", NODES),
    Case("nodes.environ", _HOST2 + "environ", {"NCCL_SOCKET_IFNAME": "ens3"}, INFO,
         "node2 has NCCL_SOCKET_IFNAME=ens3", _NAMED),
    Case("nodes.environ", _HOST2 + "environ", {}, WARN, "node2 has NCCL_SOCKET_IFNAME unset",
         _NAMED),
    Case("nodes.clock", "1.host.clock_offset_s", 1.0, WARN, "1.0 s ahead (± 1 ms)", NODES[:2]),
    Case("nodes.clock", _HOST2 + "clock_offset_s", -2.5, WARN, "2.5 s behind (± 1 ms)", NODES),
    Case("nodes.clock", _HOST2 + "clock_offset_s", 0.25, WARN, "250 ms ahead (± 1 ms)", NODES),
    Case("nodes.cpu", _HOST2 + "usable_cores", 96.0, INFO,
         "3 of 4 nodes have 192 usable cores; node2 has 96 usable cores", NODES),
    Case("nodes.memory", _HOST2 + "memory_total_nbytes", 1000 << 30, INFO,
         "node2 has about 1000 GiB of memory", NODES),
)  # fmt: skip

SILENT_OVER_NODES = (
    ("nodes.environ", _HOST2 + "environ", {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4"}, NODES),
    ("nodes.memory", _HOST2 + "memory_total_nbytes", (2048 << 30) - (300 << 20), NODES),
    ("nodes.gpu.memory", N2 + "nvml.gpus.3.memory_total_nbytes", (80 << 30) - 1, NODES),
    ("nodes.clock", _HOST2 + "clock_offset_error_s", 3.0,
     with_field(NODES, _HOST2 + "clock_offset_s", 2.5)),
    ("nodes.driver", N2 + "nvml", NO_DRIVER, NODES),
    ("nodes.topology", N2 + "nvml.gpus", _GPUS[:7],
     with_field(NODES, N2 + "nvml.pairs", NODES[2].nvml.pairs[:21])),
    ("nodes.nccl", N2 + "software.torch_cuda", None, with_field(NODES, N2 + "software.nccl", None)),
    ("nodes.infiniband.rate", _HOST2 + "infiniband.3", InfinibandPort(
        "mlx5_3", 1, "1: DOWN", "2: Polling", "10 Gb/sec", "InfiniBand"), NODES),
    ("nodes.fabric", "0.problem", "", _DOMAIN),
    ("nodes.fabric", "0.nvml.gpus.3.fabric_cluster_uuid", None, NODES[:1]),
    ("nodes.fabric", N2 + "nvml.gpus.3", replace(h100(3), fabric_clique_id=9), NODES),
)  # fmt: skip
"""Rule, field, value, base: near a fault, and none."""

UNREAD_OVER_NODES = (
    Unread("nodes.torch", N2 + "software.torch", NODES),
    Unread("nodes.nccl", N2 + "software.nccl", NODES),
    Unread("nodes.python", N2 + "software.python", NODES),
    Unread("nodes.distrun", N2 + "software.distrun", NODES),
    Unread("nodes.kernel", _HOST2 + "kernel", NODES),
    Unread("nodes.driver", N2 + "nvml.driver_version", NODES),
    Unread("nodes.gpu.memory", N2 + "nvml.gpus.3.memory_total_nbytes", NODES),
    Unread("nodes.gpu.vbios", N2 + "nvml.gpus.3.vbios_version", NODES),
    Unread("nodes.gpu.ecc", N2 + "nvml.gpus.3.ecc_mode", NODES),
    Unread("nodes.gpu.power_limit", N2 + "nvml.gpus.3.power_limit_w", NODES),
    Unread("nodes.topology", N2 + "nvml.pairs.0.topology", NODES),
    Unread("nodes.fabric", N2 + "nvml.gpus.3.fabric_cluster_uuid", NODES),
    Unread("nodes.fabric", N2 + "nvml.gpus.3.fabric_clique_id", _DOMAIN),
    Unread("nodes.mtu", _HOST2 + "nics.0.mtu", NODES),
    Unread("nodes.nic.speed", _HOST2 + "nics.0.speed_mbps", NODES),
    Unread("nodes.clock", _HOST2 + "clock_offset_s", NODES),
    Unread("nodes.cpu", _HOST2 + "usable_cores", NODES),
    Unread("nodes.memory", _HOST2 + "memory_total_nbytes", NODES),
)
