"""Merges SKIPs, so that there is one per rule and node instead of one per device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from distrun.checks.rule import Observation, Severity


def merge_skips(observations: Iterable[Observation]) -> Iterator[Observation]:
    """Yield the observations of one rule, with the SKIPs of each node merged at the end."""
    skipped: dict[str, dict[str, list[str]]] = {}
    for seen in observations:
        if seen.severity is Severity.SKIP:
            skipped.setdefault(seen.node, {}).setdefault(seen.observed, []).append(seen.device)
        else:
            yield seen
    for node, reasons in skipped.items():
        devices = [device for some in reasons.values() for device in some]
        texts = [
            f"{reason} on {place}" if (place := in_short(some)) else reason
            for reason, some in reasons.items()
        ]
        yield Observation(Severity.SKIP, "; ".join(texts), "", node, in_short(devices))


def in_short(devices: Iterable[str]) -> str:
    """Return `GPUs 0-3, 6` for names of GPUs, and the names of other devices as they are."""
    named = list(dict.fromkeys(device for device in devices if device))
    found = [re.match(r"GPU (\d+)\b", name) for name in named]
    indexes = sorted({int(match[1]) for match in found if match})
    others = [name for name, match in zip(named, found, strict=True) if not match]
    if indexes:
        others.insert(0, f"GPU{'s' if len(indexes) > 1 else ''} {ranges(indexes)}")
    return ", ".join(others)


def ranges(indexes: Iterable[int]) -> str:
    """Return `0-3, 6` for 0, 1, 2, 3, 6."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
