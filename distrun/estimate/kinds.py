"""Kinds of GPUs: what they can do by data sheet, and what of it a training reaches.

Peaks are those of `distrun.peaks`. `matmul`, `half_dim` and `attention` of h100, a100-80 and
a100-40 were fitted on step times that MosaicML published for MPT models of 125 M to 30 B
parameters on 8 GPUs (llm-foundry, scripts/train/benchmarking; flash attention of 2023), on no row
of more GPUs. The others take h100's part, times the ratio of the best matrix product measured on
both (Stas Bekman, Machine Learning Engineering, compute/accelerator: 80.3 % of the peak on H100,
77.6 % on B200) where there is one. An own kind needs no code: `--kinds FILE.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from distrun.errors import UsageError, did_you_mean
from distrun.peaks import peak_flops

GB, GIB = 10**9, 2**30


@dataclass(frozen=True)
class Kind:
    """One kind of GPU, in a node as it is sold.

    Attributes:
        name: As `--gpus` takes it.
        memory_nbytes: What the driver shows as its memory.
        memory_bytes_per_s: Bandwidth of that memory.
        tflops: Peak of bfloat16, float32 and float64, dense.
        matmul: The part of the peak that large matrix products reach.
        half_dim: Each side of a product of this length halves that part.
        attention: The part of the peak that flash attention reaches.
        link_bytes_per_s: Between the GPUs of a node, busbw of a ring.
        nics: In a node of `gpus`; a node with fewer has as many fewer.
        nic_bytes_per_s: Of one NIC, one way.
        gpus: In a node as it is sold; 1: `nics` are there whatever a job uses.
        host_bytes_per_s: Between a GPU and its host's memory, one way.
        fitted: Whether efficiencies were fitted on this kind.
        source: Where the figures come from.
    """

    name: str
    memory_nbytes: int
    memory_bytes_per_s: float
    tflops: tuple[float, float, float]
    matmul: float
    half_dim: float
    attention: float
    link_bytes_per_s: float
    nics: int
    nic_bytes_per_s: float
    gpus: int = 1
    host_bytes_per_s: float = 50 * GB
    fitted: bool = False
    source: str = ""

    def node_bytes_per_s(self, gpus: int) -> float:
        """Return the rate of all NICs of a node with so many GPUs."""
        return max(1.0, self.nics * min(1.0, gpus / self.gpus)) * self.nic_bytes_per_s

    def peak(self, dtype: str) -> float:
        """Return FLOP/s for a dtype."""
        half, single, double = self.tflops
        tf32 = single if self.name == "cpu" else max(half / 2, single)  # by the data sheets
        by_dtype = {"float32": single, "float64": double, "tf32": tf32}
        return by_dtype.get(dtype, self.tflops[0]) * 1e12


def _tflops(name: str) -> tuple[float, float, float]:
    half, single, double = (peak_flops(name, t) for t in ("bfloat16", "float32", "float64"))
    assert half and single and double  # a name of distrun.peaks
    return half / 1e12, single / 1e12, double / 1e12


_H100 = Kind(
    "h100",
    memory_nbytes=81559 << 20,  # nvidia-smi
    memory_bytes_per_s=3350 * GB,
    tflops=_tflops("H100"),
    matmul=0.722,
    half_dim=518,
    attention=0.183,
    link_bytes_per_s=370 * GB,  # NVLink 4; all_gather of 8 GPUs (ML Engineering, network)
    nics=8,
    nic_bytes_per_s=50 * GB,  # 400 Gbit/s
    gpus=8,
    fitted=True,
    source="data sheet of H100 SXM 80 GB; fitted on published step times of 8 H100",
)
_A100 = replace(
    _H100,
    name="a100-80",
    memory_nbytes=81920 << 20,
    memory_bytes_per_s=2039 * GB,
    tflops=_tflops("A100"),
    matmul=0.872,
    half_dim=334,
    attention=0.321,
    link_bytes_per_s=235 * GB,  # NVLink 3
    nic_bytes_per_s=25 * GB,  # 200 Gbit/s
    host_bytes_per_s=25 * GB,  # PCIe 4.0
    source="data sheet of A100 SXM 80 GB; fitted on published step times of 8 A100",
)
_B200_PART = 77.6 / 80.3
_PCIE_4, _PCIE_5 = 25 * GB, 50 * GB
_TABLE = (
    _H100,
    replace(
        _H100,
        name="h200",
        memory_nbytes=143771 << 20,
        memory_bytes_per_s=4800 * GB,
        fitted=False,
        source="data sheet of H200 SXM 141 GB; efficiencies of h100, which has the same chip",
    ),
    _A100,
    replace(
        _A100,
        name="a100-40",
        memory_nbytes=40960 << 20,
        memory_bytes_per_s=1555 * GB,
        matmul=0.737,
        half_dim=156,
        attention=0.313,
        nics=4,
        nic_bytes_per_s=12.5 * GB,  # 4 x 100 Gbit/s, as in AWS p4d.24xlarge
        source="data sheet of A100 SXM 40 GB; fitted on published step times of 8 A100",
    ),
    replace(
        _H100,
        name="b200",
        memory_nbytes=183359 << 20,
        memory_bytes_per_s=8000 * GB,
        tflops=_tflops("B200"),
        matmul=0.722 * _B200_PART,
        link_bytes_per_s=740 * GB,  # NVLink 5, twice NVLink 4
        fitted=False,
        source="data sheet of B200 SXM 180 GB; efficiencies of h100 times 77.6 / 80.3",
    ),
    replace(
        _H100,
        name="l40s",
        memory_nbytes=46068 << 20,
        memory_bytes_per_s=864 * GB,
        tflops=_tflops("L40S"),
        link_bytes_per_s=0.8 * _PCIE_4,
        nics=4,
        nic_bytes_per_s=25 * GB,
        host_bytes_per_s=_PCIE_4,
        fitted=False,
        source="data sheet of L40S 48 GB, links are PCIe 4.0 x16; efficiencies of h100",
    ),
    replace(
        _H100,
        name="a6000",
        memory_nbytes=49140 << 20,
        memory_bytes_per_s=768 * GB,
        tflops=_tflops("RTX A6000"),
        link_bytes_per_s=0.8 * _PCIE_4,
        nics=1,
        nic_bytes_per_s=12.5 * GB,
        host_bytes_per_s=_PCIE_4,
        fitted=False,
        source="data sheet of RTX A6000 48 GB, links are PCIe 4.0 x16; efficiencies of h100",
    ),
    replace(
        _H100,
        name="4090",
        memory_nbytes=24564 << 20,
        memory_bytes_per_s=1008 * GB,
        tflops=_tflops("RTX 4090"),
        link_bytes_per_s=0.4 * _PCIE_4,  # no peer-to-peer: through the host
        nics=1,
        nic_bytes_per_s=1.25 * GB,
        host_bytes_per_s=_PCIE_4,
        fitted=False,
        source="data sheet of RTX 4090 24 GB, links are PCIe 4.0 x16; efficiencies of h100",
    ),
    replace(
        _H100,
        name="mi300x",
        memory_nbytes=196592 << 20,
        memory_bytes_per_s=5300 * GB,
        tflops=_tflops("MI300X"),
        link_bytes_per_s=310 * GB,  # 7 links of Infinity Fabric, 64 GB/s each, in a ring's 70 %
        fitted=False,
        source="data sheet of MI300X 192 GB; efficiencies of h100",
    ),
)
KINDS = {kind.name: kind for kind in _TABLE}
_OTHER_NAMES = {"a100": "a100-80", "rtx4090": "4090", "rtx-a6000": "a6000"}
_SAME_MEMORY = 0.1
_CPU_FLOPS_PER_CYCLE, _CPU_HZ = 32, 2.5e9


def kind_of(name: str, own: dict[str, Kind]) -> Kind:
    """Return a kind by its name; own ones come first.

    Raises:
        UsageError: There is none; the nearest name is told.
    """
    lower = name.strip().lower()
    known = {**KINDS, **own}
    found = known.get(_OTHER_NAMES.get(lower, lower))
    if found is None:
        near = did_you_mean(lower, [*known, "cpu"])
        raise UsageError(
            f"--gpus: no kind of GPU has the name {name!r}",
            f"{near}{'' if near.endswith('?') else ';'} --kinds FILE.toml for one of your own",
        )
    return found


def of_device(name: str, memory_nbytes: int | None) -> Kind | None:
    """Return the kind of a GPU that a driver reports, or None if it is none of the table.

    Args:
        name: As the driver reports it, such as NVIDIA H100 80GB HBM3.
        memory_nbytes: Its memory, which tells kinds with the same chip apart.
    """
    peak = peak_flops(name, "bfloat16")
    for kind in KINDS.values():
        alike = abs((memory_nbytes or 0) / kind.memory_nbytes - 1) < _SAME_MEMORY
        if peak == kind.peak("bfloat16") and alike:
            return kind
    return None


def cpu(cores: float, memory_nbytes: int, nproc_per_node: int) -> Kind:
    """Return a rank's share of a machine without GPUs, by a rule of thumb for AVX2.

    Args:
        cores: Of the machine, as this process may use them.
        memory_nbytes: Its memory.
        nproc_per_node: Ranks that share it.
    """
    single = cores / nproc_per_node * _CPU_FLOPS_PER_CYCLE * _CPU_HZ / 1e12
    return Kind(
        "cpu",
        memory_nbytes // nproc_per_node,
        40 * GB / nproc_per_node,
        (single / 2, single, single / 2),
        matmul=0.7,
        half_dim=16,
        attention=0.25,
        link_bytes_per_s=2 * GB,
        nics=1,
        nic_bytes_per_s=1.25 * GB,
        host_bytes_per_s=10 * GB,
        source="32 FLOPs a cycle and core at 2.5 GHz, 40 GB/s of memory: a rule of thumb",
    )
