"""The table `[tool.distrun.slurm]`: what `distrun launch --on slurm` asks Slurm for."""

from __future__ import annotations

from pydantic import Field, StrictBool

from distrun.spec.base import Frozen
from distrun.spec.fields import PositiveSeconds


class Slurm(Frozen):
    """A batch job, as sbatch is asked for it."""

    partition: str = ""
    """Partition, or several, with commas between."""
    account: str = ""
    """Account that the job is charged to."""
    qos: str = ""
    """Quality of service."""
    constraint: str = ""
    """Features that the nodes must have."""
    time: PositiveSeconds | None = None
    """Time limit of the job; by default that of the partition."""
    requeue: StrictBool = False
    """Let the job start again after preemption, a lost node, or its time limit."""
    sbatch: dict[str, str] = Field(default_factory=dict)
    """Other options of sbatch by their long names; an empty value for one that takes none."""
