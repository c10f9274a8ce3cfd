"""The health of a GPU as the NVSwitch fabric reports it."""

from __future__ import annotations

from collections.abc import Iterator

from distrun.checks.each import each_gpu, unread
from distrun.checks.limits import Limits
from distrun.checks.rule import Observation, Rule, Severity, Workload
from distrun.probe.snapshot import Gpu

_TRUE, _FALSE = 1, 2
_BITS = (
    (0, _TRUE, Severity.WARN, "degraded bandwidth"),
    (2, _TRUE, Severity.WARN, "route recovery in progress"),
    (4, _TRUE, Severity.FAIL, "route unhealthy"),
    (6, _TRUE, Severity.WARN, "access timeout recovery in progress"),
    (12, _FALSE, Severity.WARN, "in no partition"),
    (14, _FALSE, Severity.WARN, "no contact with the fabric manager"),
)
"""Offset of a two-bit field (0: not supported), its value for a fault, and the fault's name."""
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
_SUMMARY = {2: (Severity.FAIL, "unhealthy"), 3: (Severity.WARN, "limited capacity")}


def _check(gpu: Gpu, job: Workload, limits: Limits) -> Iterator[Observation]:
    if gpu.fabric_state == 0:
        return  # no NVSwitch
    mask, summary = gpu.fabric_health_mask, gpu.fabric_health_summary
    found = _in_mask(mask) if mask is not None else []
    if summary in _SUMMARY:
        found.append(_SUMMARY[summary])
    if found:
        worst = max(severity for severity, _ in found)
        yield Observation(worst, ", ".join(text for _, text in found), "a healthy fabric")
    if mask is None and summary is None:
        yield from unread(gpu, "fabric_health_mask")


def _in_mask(mask: int) -> list[tuple[Severity, str]]:
    found = [(how, text) for shift, bad, how, text in _BITS if mask >> shift & 0b11 == bad]
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
    fix="`nvidia-smi -q -i N` under Fabric, /var/log/fabricmanager.log; then have the switch"
    " tray or the cable inspected.",
    source="NVML_GPU_FABRIC_HEALTH_MASK_*; leptonai/gpud",
    judge=each_gpu(_check),
    gpus_only=True,
)
