"""The snapshot of one node: facts without judgement.

A fact that could not be read is None, and `missing` of its object has the reason under the field's
name. Hardware that does not exist (no InfiniBand) is an empty tuple, not missing. Plain
dataclasses: `--save` writes them as JSON, and `spec` reads that back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEMA = 1
"""Increased if a field is removed or changes its meaning, not for a new field that may be None."""

BUSY_NBYTES = 1 << 30
"""With more memory in use than this a GPU counts as busy."""

MPS_SERVER = "nvidia-cuda-mps-server"
"""The program of NVIDIA's Multi-Process Service that stays on a GPU."""

NO_ANSWER = "did not answer within"
"""Part of the reason of a fact that was not read in time."""

Missing = dict[str, str]
"""Field -> why it is None: NotSupported, NoPermission, FunctionNotFound, or a sentence."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    used_nbytes: int | None
    user: str = ""
    """"" if the process is in another PID namespace."""
    command: str = ""

    @property
    def is_mps_server(self) -> bool:
        """Whether it is the MPS server, which computes nothing itself."""
        return self.command.startswith(MPS_SERVER)

    def __str__(self) -> str:
        """Return `pid 4242 (ada, python train.py, 40.0 GiB)`."""
        who = list(filter(None, (self.user, self.command))) or ["not visible from here"]
        if self.used_nbytes is not None:
            who.append(f"{self.used_nbytes / 2**30:.1f} GiB")
        return f"pid {self.pid} ({', '.join(who)})"


@dataclass(frozen=True)
class NvLink:
    """One NVLink of a GPU."""

    link: int
    active: bool
    remote_pci_id: str = ""
    remote_type: str = ""
    """gpu, switch or npu; "" if the driver does not know."""
    errors: dict[str, int] = field(default_factory=dict)
    """Counter -> value, for counters that this driver has."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML reports it; all fields but `index` may be None."""

    index: int
    lost: str = ""
    """Why NVML returns no handle (it fell off the bus, has no power); all else is then None."""
    uuid: str = ""
    pci_id: str = ""
    name: str = ""
    compute_capability: str | None = None
    vbios_version: str | None = None
    memory_total_nbytes: int | None = None
    memory_used_nbytes: int | None = None
    utilization_percent: int | None = None
    temperature_c: int | None = None
    temperature_slowdown_c: int | None = None
    temperature_max_c: int | None = None
    temperature_margin_c: int | None = None
    """Margin below the slowdown temperature; newer drivers may report only this."""
    memory_temperature_c: int | None = None
    memory_temperature_max_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    power_default_limit_w: float | None = None
    recovery_action: int | None = None
    """NVML_GPU_RECOVERY_ACTION_*: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset."""
    mig_mode: bool | None = None
    mig_mode_pending: bool | None = None
    compute_mode: int | None = None
    """0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process."""
    persistence_mode: bool | None = None
    ecc_mode: bool | None = None
    ecc_mode_pending: bool | None = None
    ecc_volatile_uncorrected: int | None = None
    ecc_aggregate_uncorrected: int | None = None
    ecc_sram_threshold_exceeded: bool | None = None
    remapped_rows_uncorrected: int | None = None
    remapped_rows_pending: bool | None = None
    remapped_rows_failure: bool | None = None
    retired_pages: int | None = None
    retired_pages_pending: bool | None = None
    clock_events: int | None = None
    """Bits of NVML's clocks event reasons (throttle reasons, in older drivers)."""
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    bar1_total_nbytes: int | None = None
    bar1_used_nbytes: int | None = None
    fabric_state: int | None = None
    """0 not supported, 1 not started, 2 in progress, 3 completed."""
    fabric_status: int | None = None
    fabric_clique_id: int | None = None
    fabric_cluster_uuid: str | None = None
    fabric_health_mask: int | None = None
    fabric_health_summary: int | None = None
    nvlinks: tuple[NvLink, ...] | None = None
    processes: tuple[GpuProcess, ...] | None = None
    """Processes that compute on it, also under MPS; other PID namespaces may be missing."""
    graphics_processes: tuple[GpuProcess, ...] | None = None
    """Graphics processes, such as a desktop."""
    missing: Missing = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether a process computes on it, or more than 1 GiB of its memory is in use."""
        return bool(self.company) or (self.memory_used_nbytes or 0) > BUSY_NBYTES

    def answers_to(self, name: str) -> bool:
        """Return whether a name in CUDA_VISIBLE_DEVICES, an index or part of a UUID, means it."""
        return name == str(self.index) or (name.startswith("GPU-") and self.uuid.startswith(name))

    @property
    def company(self) -> tuple[GpuProcess, ...]:
        """The processes that compute on it, without the MPS server."""
        return tuple(p for p in self.processes or () if not p.is_mps_server)

    @property
    def users(self) -> str:
        """`GPU 1: ` and its processes, for a busy GPU."""
        if self.company:
            return f"GPU {self.index}: {', '.join(map(str, self.company))}"
        used = (self.memory_used_nbytes or 0) / 2**30
        return f"GPU {self.index}: {used:.1f} GiB held by a process that is not visible from here"


@dataclass(frozen=True)
class GpuPair:
    """The connection of two GPUs of a node; `a` < `b` are indexes."""

    a: int
    b: int
    topology: int | None = None
    """NVML's common ancestor: 0 self, 10 PIX, 20 PXB, 30 PHB, 40 NODE, 50 SYS."""
    p2p_read: int | None = None
    """NVML_P2P_STATUS_*: 0 is fine."""
    p2p_write: int | None = None
    p2p_nvlink: int | None = None
    nvlinks: int = 0
    """Active NVLinks from one to the other, direct or through switches."""
    missing: Missing = field(default_factory=dict)


@dataclass(frozen=True)
class Nvml:
    """What the driver reports."""

    problem: str = ""
    """"" if it answered; else the reason, as a sentence."""
    problem_kind: str = ""
    """absent, not_loaded, mismatch, hang or failed; not_asked if GPUs were not requested."""
    driver_version: str | None = None
    cuda_driver_version: int | None = None
    """13000 is CUDA 13.0."""
    excluded_gpus: int | None = None
    refused_gpus: tuple[int, ...] = ()
    """Indexes of GPUs that this user or container may not open; not in `gpus`."""
    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    missing: Missing = field(default_factory=dict)

    @property
    def present(self) -> tuple[Gpu, ...]:
        """The GPUs that are not lost."""
        return tuple(gpu for gpu in self.gpus if not gpu.lost)

    def visible(self, devices: str | None) -> tuple[str, ...]:
        """Return the names in `devices` (CUDA_VISIBLE_DEVICES) that CUDA accepts; None: all GPUs.

        CUDA stops at the first unknown name, and accepts none if a GPU is named twice.
        """
        present = () if self.problem else self.present
        if devices is None:
            return tuple(str(gpu.index) for gpu in present)
        taken: dict[str, str] = {}
        for name in map(str.strip, devices.split(",")):
            gpu = next((str(gpu.index) for gpu in present if gpu.answers_to(name)), "")
            if not (device := gpu or (name if name.startswith("MIG-") else "")):
                break
            if device in taken:
                return ()
            taken[device] = name
        return tuple(taken.values())


@dataclass(frozen=True)
class Nic:
    """One network interface; the loopback is left out."""

    name: str
    up: bool
    mtu: int | None = None
    speed_mbps: int | None = None
    """None if the driver does not know it (virtio reports -1)."""
    addresses: tuple[str, ...] = ()
    """IPv4."""
    physical: bool | None = None
    """It has a device, real or virtual; a bridge or a veth has none."""
    missing: Missing = field(default_factory=dict)
    ipv6_addresses: tuple[str, ...] = ()
    """Without those of one link."""


@dataclass(frozen=True)
class InfinibandPort:
    """One port of an InfiniBand or RoCE adapter."""

    device: str
    port: int
    state: str
    """As in sysfs: `4: ACTIVE`."""
    physical_state: str
    rate: str
    link_layer: str
    link_downed: int | None = None
    nics: tuple[str, ...] = ()
    """The visible network interfaces of its adapter: RoCE uses their MTU."""
    board: str = ""
    """The exact model of the adapter: `MT_0000000838`."""


@dataclass(frozen=True)
class Xid:
    """One Xid of the kernel log, or one SXid of an NVSwitch."""

    code: int
    pci_id: str
    age_s: float
    message: str
    part: str = ""
    """The instance of a GPU in MIG mode: `GPU-I:05`."""
    of_switch: bool = False


@dataclass(frozen=True)
class Host:
    """All but the GPUs: kernel, network, limits, disk, software."""

    hostname: str = ""
    hostname_addresses: tuple[str, ...] = ()
    """The addresses that the hostname resolves to; empty if it does not."""
    kernel: str = ""
    cpu_count: int | None = None
    usable_cores: float | None = None
    """Cores within the affinity mask and the cgroup's quota."""
    memory_total_nbytes: int | None = None
    memory_limit_nbytes: int | None = None
    """The cgroup's limit; None without an entry in `missing`: unlimited."""
    memory_limit_left_nbytes: int | None = None
    """Unused memory below the tightest cgroup limit; file cache counts as unused."""
    memory_available_nbytes: int | None = None
    shm_total_nbytes: int | None = None
    shm_free_nbytes: int | None = None
    shm_writable: bool | None = None
    shm_leftovers: tuple[str, ...] = ()
    """NCCL's files in /dev/shm whose owners have ended."""
    memlock_nbytes: int | None = None
    """Soft limit; -1 is unlimited."""
    nofile: int | None = None
    nproc: int | None = None
    nproc_used: int | None = None
    """What the limit counts: the user's (not root's), or the container's where that is nearer."""
    numa_nodes: int | None = None
    numa_balancing: bool | None = None
    clock_synchronized: bool | None = None
    clock_offset_s: float | None = None
    """Offset to the checking machine, corrected by half of the round trip; None on that machine."""
    clock_offset_error_s: float | None = None
    """Half of that round trip: the error of the offset."""
    loopback_problem: str | None = None
    """Why connecting to 127.0.0.1 fails; "" if it works."""
    nics: tuple[Nic, ...] = ()
    infiniband: tuple[InfinibandPort, ...] = ()
    peermem: bool | None = None
    """Whether a module for GPUDirect RDMA is loaded."""
    open_driver: bool | None = None
    """Whether NVIDIA's kernel module is the open one."""
    xids: tuple[Xid, ...] | None = None
    """Xids of the last two hours; None if the kernel log cannot be read."""
    runs_dir: str = ""
    runs_dir_writable: bool | None = None
    runs_dir_total_nbytes: int | None = None
    runs_dir_free_nbytes: int | None = None
    environ: dict[str, str] = field(default_factory=dict)
    """NCCL_*, GLOO_*, CUDA_*, TORCH_*, OMP_*; secrets masked."""
    missing: Missing = field(default_factory=dict)


@dataclass(frozen=True)
class Software:
    """Versions, read from files: nothing is imported."""

    distrun: str = ""
    python: str = ""
    torch: str = ""
    """"" if torch is not installed."""
    torch_cuda: str | None = None
    """The CUDA version of torch's build, `13.0`; None for a CPU build."""
    nccl: str | None = None
    missing: Missing = field(default_factory=dict)


@dataclass(frozen=True)
class Reach:
    """The result of one node's connection to a port of another."""

    source: str
    target: str
    address: str
    port: int
    problem: str = ""
    """"" if the connection was made."""
    source_address: str = ""
    """The addresses of both ends of the connection."""
    target_address: str = ""


@dataclass(frozen=True)
class MeasuredRank:
    """What one rank of a small job measured on its device."""

    rank: int
    device: str
    matmul_flops: float
    """Best FLOP/s; float16 on a GPU, float32 on one thread of a CPU."""
    copy_bandwidth: float | None
    """Bytes per second from pinned memory to the GPU; None on a CPU."""


@dataclass(frozen=True)
class MeasuredLink:
    """A message between two nodes, or between two ranks of one."""

    a: int
    b: int
    bandwidth: float
    """Bytes per second."""


@dataclass(frozen=True)
class Measured:
    """What `distrun check --deep` measured with a small job."""

    problem: str = ""
    """Why the job did not finish; "" if it did."""
    backend: str = ""
    ranks: tuple[MeasuredRank, ...] = ()
    all_reduce_s: float | None = None
    """Median time of an all_reduce of eight bytes over all ranks."""
    all_reduce_right: bool | None = None
    links: tuple[MeasuredLink, ...] = ()
    links_over: str = "rank"
    """node or rank: what `a` and `b` count."""
    slow: tuple[str, ...] = ()
    """Slow links and nodes, one sentence each, as in `bench-comm --op pairs`."""


@dataclass(frozen=True)
class Node:
    """One node."""

    name: str
    """The name it was requested by: a host, or `this machine`."""
    taken_at: str
    """UTC, ISO 8601."""
    nvml: Nvml
    host: Host
    software: Software
    reaches: tuple[Reach, ...] = ()
    """Connections from this node to others."""
    problem: str = ""
    """Why the probe could not finish; all else is then empty."""
    measured: Measured | None = None
    schema: int = SCHEMA
