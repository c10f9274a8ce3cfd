"""Formats numbers and lists for people."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """Return `1 GPU`, `8 GPUs` or `no GPUs`."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def some(texts: Sequence[str], most: int) -> str:
    """Return the first few texts, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def gib(nbytes: int) -> str:
    """Return `12.3 GiB`."""
    return f"{nbytes / 2**30:.1f} GiB"


def mib(nbytes: int) -> str:
    """Return `64 MiB`."""
    return f"{nbytes / 2**20:.0f} MiB"


def rate(mbps: int) -> str:
    """Return `25 Gb/s`."""
    return f"{mbps / 1000:g} Gb/s" if mbps >= 1000 else f"{mbps} Mb/s"
