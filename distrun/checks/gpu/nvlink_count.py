"""A GPU with fewer active NVLinks than the others of its node."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from distrun.checks.each import device, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu, Node

_ON_A_BOARD = re.compile(r"SXM|HBM3|\b(H20|H200|H800|B200|B300|GB200|GB300)$")
"""Names of GPUs whose board has NVLinks; on others they need a bridge."""


def _judge(nodes: Sequence[Node], job: Workload, limits: Limits) -> Iterator[Observation]:
    for node in nodes:
        alike: dict[str, list[Gpu]] = {}
        for gpu in node.nvml.present:
            alike.setdefault(gpu.name, []).append(gpu)
        for gpu in node.nvml.present:
            for seen in _check(gpu, alike[gpu.name]):
                yield replace(seen, node=node.name, device=device(gpu))


def _check(gpu: Gpu, alike: Sequence[Gpu]) -> Iterator[Observation]:
    if gpu.nvlinks is None:
        yield from unread(gpu, "nvlinks")
        return
    up, most = _active(gpu), _usual(alike)
    down = ", ".join(str(link.link) for link in gpu.nvlinks if not link.active)
    told = f"{up} NVLinks up" + (f" (down: {down})" if down else "")
    if up < most:
        bridged = not up and not _is_wired(gpu) and _has_bridges(alike)
        yield Observation(
            Severity.INFO if bridged else Severity.FAIL,
            "no NVLink bridge" if bridged else told,
            f"{most}, as the other GPUs have",
        )
    elif gpu.nvlinks and not up and len(alike) > 1 and _is_wired(gpu) and not gpu.mig_mode:
        yield Observation(Severity.FAIL, told, f"{len(gpu.nvlinks)}: its board has that many")


def _usual(alike: Sequence[Gpu]) -> int:
    """Return the most common number of active links."""
    counts = Counter(_active(gpu) for gpu in alike if gpu.nvlinks is not None)
    # Of equally common counts take the greater one: the GPU was built with that many.
    return max(counts, key=lambda count: (counts[count], count))


def _is_wired(gpu: Gpu) -> bool:
    return _ON_A_BOARD.search(gpu.name) is not None


def _has_bridges(alike: Sequence[Gpu]) -> bool:
    """Return whether their links lead directly to GPUs, over bridges."""
    links = [link for gpu in alike for link in gpu.nvlinks or () if link.active]
    return all(link.remote_type == "gpu" for link in links)


def _active(gpu: Gpu) -> int:
    return sum(link.active for link in gpu.nvlinks or ())


RULE = Rule(
    id="gpu.nvlink.count",
    title="NVLinks compared with the other GPUs",
    why="NCCL builds its rings over the links that all GPUs have: one missing link slows every"
    " GPU of the node, and none at all sends its traffic over PCIe.",
    fix="`nvidia-smi nvlink --status -i N`; restart nvidia-fabricmanager, reset all GPUs of the"
    " node, and have the bridge or the baseboard inspected if it stays down.",
    source="NVIDIA/nvidia-resiliency-ext, leptonai/gpud",
    judge=_judge,
    gpus_only=True,
)
