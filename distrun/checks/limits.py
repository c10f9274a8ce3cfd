"""Every threshold of every rule, in one table. The config's `[tool.distrun.check]` overrides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The thresholds, by the rule that reads them."""

    shm_fail_nbytes: int = 64 << 20
    """Docker's default for /dev/shm; NCCL takes some 10 MB a rank (NVIDIA/nccl#342)."""
    shm_warn_nbytes: int = 1 << 30
