"""One fault of a host for each rule about hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distrun.probe.snapshot import InfinibandPort, Nic
from tests.unit.checks.bases import with_field
from tests.unit.checks.cases import FAIL, INFO, LAPTOP, NODE, NODES, WARN, Case, Unread

HOST = "0.host."
IB = HOST + "infiniband"
_ALONE: dict[str, Any] = {"nproc_per_node": 1}
_UNPLUGGED = Nic("eth1", False, 1500, None)
_SLOW = Nic("eth0", True, 1500, 1000, ("10.0.0.10",), True)
_DOWN = InfinibandPort("mlx5_3", 1, "1: DOWN", "2: Polling", "10 Gb/sec", "InfiniBand", 0)
_PORTS = NODE[0].host.infiniband
_BOARD = _PORTS[3].board
_UNPLUGGED_PORTS = tuple(replace(_DOWN, device=f"mlx5_{n}", board=_BOARD) for n in range(4, 8))
_INIT = InfinibandPort("mlx5_3", 1, "2: INIT", "5: LinkUp", "400 Gb/sec", "InfiniBand", 0)
_ROCE_PORT = InfinibandPort(
    "mlx5_0", 1, "4: ACTIVE", "5: LinkUp", "100 Gb/sec", "Ethernet", 0, ("eth0",)
)
_CLOUD_PORT = replace(_ROCE_PORT, device="mlx5_an0", nics=("eth1",))
_CLOUD_NIC = Nic("eth1", True, 1500, 50_000, ("10.1.0.10",), True)
NO_IB = with_field(NODES, IB, ())
ROCE = with_field(NODES, IB, (_ROCE_PORT,))
_BESIDE_IB = with_field(NODES, IB, (*NODES[0].host.infiniband, _CLOUD_PORT))
_CLOUD = with_field(NODE, IB, (_CLOUD_PORT,))
_SLOW_IPOIB = Nic("ib0", True, 2044, 400_000, ("10.2.0.10",), True)
_CLOSED = with_field(NODE, HOST + "open_driver", False)
_OTHER_PORT = with_field(NODE, HOST + "environ", {"NCCL_IB_HCA": "=mlx5_3:2,mlx5_0"})
_OTHERS = with_field(NODE, HOST + "environ", {"NCCL_IB_HCA": "^mlx5_1"})
_HCA = with_field(NODE, HOST + "environ", {"NCCL_IB_HCA": "=mlx5_3:1"})


def _environ(**variables: str) -> tuple[str, dict[str, str]]:
    return HOST + "environ", variables


HOST_CASES = (
    Case("host.torch", "0.software.torch", "", FAIL, "not installed"),
    Case("host.torch", "0.software.torch_cuda", None, FAIL, "is a CPU build, and this node has 8"
    " GPUs"),
    Case("host.torch", "0.software.torch_cuda", None, WARN, "is a CPU build", NODE,
         {"uses_gpus": False}),
    Case("host.hostname", HOST + "hostname_addresses", ("127.0.1.1",), FAIL, "node0 is 127.0.1.1",
         NODES),
    Case("host.hostname", HOST + "hostname_addresses", ("127.0.1.1", "10.0.0.10"), FAIL,
         "node0 is 127.0.1.1, 10.0.0.10", NODES),
    Case("host.hostname", HOST + "hostname_addresses", ("127.0.0.1", "::1"), INFO, "0.0.1, ::1"),
    Case("host.hostname", HOST + "hostname_addresses", (), FAIL, "resolves to nothing", NODES),
    Case("host.ifname", *_environ(GLOO_SOCKET_IFNAME="ib0"), FAIL,
         "GLOO_SOCKET_IFNAME=ib0: there is no such interface"),
    Case("host.ifname", *_environ(GLOO_SOCKET_IFNAME="eth0,ib0"), FAIL, "no such interface"),
    Case("host.ifname", *_environ(GLOO_SOCKET_IFNAME="eth"), FAIL, "no such interface"),
    Case("host.ifname", *_environ(NCCL_SOCKET_IFNAME="=eth"), FAIL, "no such interface"),
    Case("host.ifname", *_environ(NCCL_SOCKET_IFNAME="eth1"), FAIL, "the interface is down",
         with_field(NODE, HOST + "nics", (*NODE[0].host.nics, _UNPLUGGED))),
    Case("host.ifname", *_environ(NCCL_SOCKET_IFNAME="lo"), FAIL, "the loopback", NODES),
    Case("host.nic", HOST + "nics", (_UNPLUGGED,), FAIL, "none (down: eth1)", NODES),
    Case("host.nic", HOST + "nics", (), FAIL, "none", NODES),
    Case("host.nic.speed", HOST + "nics", (_SLOW,), WARN, "1 Gb/s", NO_IB),
    Case("host.nic", HOST + "nics", (), FAIL, "none", NODE, {"nnodes": 2}),
    Case("host.nic.speed", HOST + "nics", (_SLOW,), WARN, "1 Gb/s", NO_IB, {"nnodes": 2}),
    Case("host.mtu", HOST + "nics", (_SLOW,), WARN, "MTU 1500", ROCE),
    Case("host.mtu", HOST + "nics", (*NODE[0].host.nics, _CLOUD_NIC), INFO, "MTU 1500", _CLOUD),
    Case("host.infiniband", IB, (_DOWN,), WARN, "DOWN, link Polling"),
    Case("host.infiniband", IB + ".3", _DOWN, INFO, "DOWN, link Polling"),
    Case("host.infiniband", IB + ".3", replace(_DOWN, board=_BOARD), WARN, "DOWN, link Polling"),
    Case("host.infiniband", IB + ".3", replace(_DOWN, board="MT_0000000223"), INFO, "Polling"),
    Case("host.infiniband", IB + ".3", replace(_DOWN, board=_BOARD, state="2: INIT"), INFO,
         "INIT, link Polling", with_field(NODE, IB, (*_PORTS[:4], *_UNPLUGGED_PORTS))),
    Case("host.infiniband", IB + ".3", replace(_DOWN, board=_BOARD), INFO, "DOWN, link Polling",
         with_field(NODE, IB + ".7.rate", "200 Gb/sec (4X HDR)")),
    Case("host.infiniband", IB + ".3",
         replace(_DOWN, board=_BOARD, physical_state="3: Disabled"), INFO, "link Disabled"),
    Case("host.infiniband", IB + ".3", _INIT, WARN, "INIT, link LinkUp"),
    Case("host.infiniband", IB + ".3", _DOWN, FAIL, "DOWN, link Polling", _HCA),
    Case("host.infiniband", IB + ".3", _DOWN, INFO, "DOWN, link Polling", _OTHER_PORT),
    Case("host.infiniband", IB + ".3", _DOWN, INFO, "DOWN, link Polling", _OTHERS),
    Case("host.infiniband.flaps", IB + ".3.link_downed", 6, WARN, "went down 6 times"),
    Case("host.peermem", HOST + "peermem", False, WARN, "no module", _CLOSED),
    Case("host.peermem", HOST + "peermem", False, WARN, "no module",
         with_field(NODE, HOST + "kernel", "5.4.0-216-generic")),
    Case("host.peermem", HOST + "peermem", False, WARN, "no module",
         with_field(NODE, HOST + "kernel", "")),
    Case("host.peermem", HOST + "peermem", False, INFO, "NCCL uses DMA-BUF"),
    Case("host.peermem", HOST + "peermem", False, INFO, "no module",
         with_field(_CLOUD, HOST + "open_driver", None)),
    Case("host.memlock", HOST + "memlock_nbytes", 8 << 20, INFO, "8 MiB", _CLOUD),
    Case("host.memlock", HOST + "memlock_nbytes", 8 << 20, WARN, "8 MiB", ROCE),
    Case("host.memlock", HOST + "memlock_nbytes", 8 << 20, WARN, "8 MiB"),
    Case("host.nofile", HOST + "nofile", 1024, WARN, "1024", NODES),
    Case("host.memlock", HOST + "memlock_nbytes", 0, WARN, "0 MiB"),
    Case("host.nofile", HOST + "nofile", 0, FAIL, "0", LAPTOP),
    Case("host.nofile", HOST + "nofile", 256, FAIL, "256", LAPTOP),
    Case("host.nproc", HOST + "nproc", 1024, WARN, "1024"),
    Case("host.nproc", HOST + "nproc_used", 120, FAIL, "130, with 120 in use",
         with_field(NODE, HOST + "nproc", 130)),
    Case("host.loopback", HOST + "loopback_problem", "Network is unreachable", FAIL,
         "127.0.0.1: Network is unreachable"),
    Case("host.loopback", HOST + "loopback_problem", "timed out", WARN, "timed out", NODES),
    Case("host.shm", HOST + "shm_free_nbytes", 64 << 20, FAIL, "64 MiB free"),
    Case("host.shm", HOST + "shm_free_nbytes", 64 << 20, WARN, "64 MiB free", NODE, _ALONE),
    Case("host.shm", HOST + "shm_writable", False, FAIL, "not writable"),
    Case("host.shm", HOST + "shm_writable", False, WARN, "not writable", LAPTOP),
    Case("host.shm", HOST + "shm_free_nbytes", 0, INFO, "0 MiB free", LAPTOP),
    Case("host.shm.leftovers", HOST + "shm_leftovers", ("/dev/shm/nccl-a", "/dev/shm/nccl-b"),
         WARN, "2 leftovers: /dev/shm/nccl-a, /dev/shm/nccl-b"),
    Case("host.cpu", HOST + "usable_cores", 4.0, WARN, "4 of 192 cores for 8 ranks"),
    Case("host.cpu", HOST + "usable_cores", 12.0, WARN, "12 of 192 cores for 8 ranks"),
    Case("host.cpu", HOST + "usable_cores", 1.0, INFO, "1 of 8 cores for 2 ranks", LAPTOP),
    Case("host.cpu", HOST + "usable_cores", 8.0, INFO, "8 cores for 16 ranks", LAPTOP,
         {"nproc_per_node": 16}),
    Case("host.memory", HOST + "memory_available_nbytes", 200 << 20, FAIL,
         "100 MiB available for each rank", LAPTOP),
    Case("host.memory", HOST + "memory_limit_nbytes", 400 << 20, WARN,
         "200 MiB available for each rank (the container's limit is 400 MiB)", LAPTOP),
    Case("host.memory", HOST + "memory_limit_left_nbytes", 400 << 20, WARN, "200 MiB available for"
         " each rank (the container's limit is 4096 MiB, 400 MiB of it unused)", LAPTOP),
    Case("host.memory", HOST + "memory_limit_left_nbytes", 0, FAIL, "0 MiB available", LAPTOP),
    Case("host.numa_balancing", HOST + "numa_balancing", True, WARN, "on, with 2 NUMA nodes"),
    Case("host.clock", HOST + "clock_synchronized", False, WARN, "not synchronised", NODES),
    Case("host.clock", HOST + "clock_synchronized", False, INFO, "not synchronised"),
    Case("host.runs_dir", HOST + "runs_dir_writable", False, FAIL, "not writable"),
    Case("host.runs_dir", HOST + "runs_dir_free_nbytes", 294 << 30, WARN, "4.2 % (294.0 GiB) free"),
    Case("host.environ", *_environ(CUDA_LAUNCH_BLOCKING="1"), WARN, "CUDA_LAUNCH_BLOCKING=1"),
    Case("host.environ", *_environ(NCCL_P2P_DISABLE="1"), WARN, "NCCL_P2P_DISABLE=1"),
    Case("host.environ", *_environ(NCCL_SHM_DISABLE="true"), WARN, "NCCL_SHM_DISABLE=true"),
    Case("host.environ", *_environ(NCCL_IB_DISABLE="1"), WARN, "NCCL_IB_DISABLE=1"),
    Case("host.environ", *_environ(NCCL_NVLS_ENABLE="0"), WARN, "NCCL_NVLS_ENABLE=0"),
    Case("host.environ", *_environ(NCCL_DEBUG="TRACE"), WARN, "NCCL_DEBUG=TRACE"),
    Case("host.environ", *_environ(TORCH_DISTRIBUTED_DEBUG="DETAIL"), WARN, "DEBUG=DETAIL", LAPTOP),
)  # fmt: skip

SILENT_ON_HOSTS = (
    ("host.hostname", *_environ(GLOO_SOCKET_IFNAME="eth0"),
     with_field(NODES, HOST + "hostname_addresses", ("127.0.1.1",))),
    ("host.hostname", HOST + "hostname_addresses", ("10.0.0.10", "127.0.1.1"), NODES),
    ("host.ifname", *_environ(NCCL_SOCKET_IFNAME="eth"), NODES),
    ("host.ifname", *_environ(NCCL_SOCKET_IFNAME="^docker,lo"), NODES),
    ("host.ifname", *_environ(NCCL_SOCKET_IFNAME="=eth0", GLOO_SOCKET_IFNAME="eth0"), NODES),
    ("host.ifname", *_environ(GLOO_SOCKET_IFNAME="lo"), NODE),
    ("host.ifname", *_environ(NCCL_SOCKET_IFNAME="ib0"), LAPTOP),
    ("host.ifname", *_environ(GLOO_SOCKET_IFNAME=""), NODES),
    ("host.nic", HOST + "nics", (), NODE),
    ("host.nic.speed", HOST + "nics", (_SLOW,), NODES),
    ("host.mtu", HOST + "nics", (_SLOW,), NODES),
    ("host.mtu", HOST + "nics", (*NODE[0].host.nics, _CLOUD_NIC, _SLOW_IPOIB), _BESIDE_IB),
    ("host.mtu", HOST + "nics", (*NODE[0].host.nics, _CLOUD_NIC), ROCE),
    ("host.mtu", HOST + "infiniband.0.nics", (), ROCE),
    ("host.memlock", HOST + "memlock_nbytes", 8 << 20, LAPTOP),
    ("host.memlock", HOST + "memlock_nbytes", 8 << 20, with_field(NODE, IB, (_DOWN,))),
    ("host.nofile", HOST + "nofile", -1, NODES),
    ("host.nofile", HOST + "nofile", 1024, LAPTOP),
    ("host.peermem", HOST + "peermem", False, with_field(NODE, IB, ())),
    ("host.numa_balancing", HOST + "numa_balancing", True,
     with_field(NODE, HOST + "numa_nodes", 1)),
    ("host.numa_balancing", HOST + "numa_balancing", True, LAPTOP),
    ("host.environ", *_environ(CUDA_LAUNCH_BLOCKING="0", NCCL_DEBUG="INFO"), NODE),
    ("host.environ", *_environ(CUDA_LAUNCH_BLOCKING="1", NCCL_P2P_DISABLE="1"), LAPTOP),
    ("host.environ", *_environ(NCCL_IB_DISABLE="1"), with_field(NODE, IB, ())),
    ("host.shm", HOST + "shm_free_nbytes", 2 << 30, LAPTOP),
)  # fmt: skip
"""Rule, field, value, base: near a fault, and none."""

UNREAD_ON_HOSTS = (
    Unread("host.torch", "0.software.torch_cuda"),
    Unread("host.hostname", HOST + "hostname_addresses", NODES),
    Unread("host.ifname", HOST + "nics",
           with_field(NODES, HOST + "environ", {"GLOO_SOCKET_IFNAME": "eth0"})),
    Unread("host.nic", HOST + "nics", NODES),
    Unread("host.nic.speed", HOST + "nics.0.speed_mbps", NO_IB),
    Unread("host.mtu", HOST + "nics.0.mtu", ROCE),
    Unread("host.peermem", HOST + "peermem"),
    Unread("host.memlock", HOST + "memlock_nbytes"),
    Unread("host.nofile", HOST + "nofile"),
    Unread("host.nproc", HOST + "nproc"),
    Unread("host.loopback", HOST + "loopback_problem"),
    Unread("host.shm", HOST + "shm_free_nbytes"),
    Unread("host.shm", HOST + "shm_writable"),
    Unread("host.shm.leftovers", HOST + "shm_leftovers"),
    Unread("host.cpu", HOST + "usable_cores"),
    Unread("host.memory", HOST + "memory_available_nbytes"),
    Unread("host.numa_balancing", HOST + "numa_balancing"),
    Unread("host.clock", HOST + "clock_synchronized"),
    Unread("host.runs_dir", HOST + "runs_dir_writable"),
    Unread("host.runs_dir", HOST + "runs_dir_free_nbytes"),
)  # fmt: skip
