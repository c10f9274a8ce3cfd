"""ECC should be on, on data-centre GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu

_DATACENTRE = re.compile(
    r"\b(Tesla|A2|A10|A16|A30|A40|A100|A800|L4|L20|L40S?|H20|H100|H200|H800|GH200"
    r"|B100|B200|B300|GB200|GB300|P100|V100|T4)\b"
)


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    pending = gpu.ecc_mode_pending
    if gpu.ecc_mode is None:
        yield from unread(gpu, "ecc_mode")
    elif pending is not None and pending != gpu.ecc_mode:
        turned = "on" if pending else "off"
        yield Observation(Severity.WARN, f"ECC goes {turned} at the next reset", "settled")
    elif not gpu.ecc_mode and _DATACENTRE.search(gpu.name):
        yield Observation(Severity.WARN, "ECC off", "on")


RULE = Rule(
    id="gpu.ecc.mode",
    title="ECC mode",
    why="Without ECC a flipped bit in a weight or a gradient is not detected. A pending change"
    " of the mode makes this GPU differ from the others after its next reset.",
    fix="`nvidia-smi -i N -e 1`, then `nvidia-smi --gpu-reset -i N` or a reboot.",
    source="distrun's own rule",
    judge=each_gpu(_check),
    gpus_only=True,
)
