"""What the fabric says of a GPU's health."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Job, Observation, Rule, Severity
from distrun.probe.snapshot import Gpu

_BITS = (
    (0, Severity.WARN, "degraded bandwidth"),
    (2, Severity.WARN, "route recovery under way"),
    (4, Severity.FAIL, "route unhealthy"),
    (6, Severity.WARN, "access timeout recovery under way"),
)
"""Where two bits begin that hold 0 not supported, 1 true, 2 false; and what true means."""
_CONFIGURATION_SHIFT = 8
_CONFIGURATION = {
    2: "wrong system GUID",
    3: "wrong chassis serial number",
    4: "no partition",
    5: "too few NVLinks",
    6: "incompatible GPU firmware",
    7: "invalid location",
    8: "invalid GPU state",
}
_UNHEALTHY, _LIMITED = 2, 3


def _look(gpu: Gpu, job: Job, limits: Limits) -> Iterator[Observation]:
    if gpu.fabric_state == 0:
        return  # no NVSwitch
    mask, summary = gpu.fabric_health_mask, gpu.fabric_health_summary
    found = _in_mask(mask) if mask is not None else []
    if summary == _UNHEALTHY and not found:
        found = [(Severity.FAIL, "unhealthy")]
    elif summary == _LIMITED and not found:
        found = [(Severity.WARN, "limited capacity")]
    if found:
        worst = max(severity for severity, _ in found)
        yield Observation(worst, ", ".join(text for _, text in found), "a healthy fabric")
    if mask is None and summary is None:
        yield from unread(gpu, "fabric_health_mask")


def _in_mask(mask: int) -> list[tuple[Severity, str]]:
    found = [(severity, text) for shift, severity, text in _BITS if mask >> shift & 0b11 == 1]
    configuration = mask >> _CONFIGURATION_SHIFT & 0xF
    if configuration > 1:
        text = _CONFIGURATION.get(configuration, f"code {configuration}")
        found.append((Severity.FAIL, f"incorrect configuration: {text}"))
    return found


RULE = Rule(
    id="gpu.fabric.health",
    title="Health of the NVSwitch fabric",
    why="Traffic between GPUs goes through the switches: a bad route makes collectives fail,"
    " a degraded one makes all of them slow.",
    fix="`nvidia-smi -q -i N` under Fabric, /var/log/fabricmanager.log; then have the switch tray"
    " or the cable looked at.",
    source="NVML_GPU_FABRIC_HEALTH_MASK_*; leptonai/gpud",
    judge=each_gpu(_look),
    gpus_only=True,
)
