"""A job as it was asked for, and what is held of it before it is submitted anywhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distrun import __version__
from distrun.api.prepare import require_script, require_usable_runs_dir
from distrun.errors import require_supported_system
from distrun.plan.layout import hold_constraints, run_name
from distrun.plan.model import Program
from distrun.runs import record
from distrun.runs.record import RunRecord
from distrun.schedulers.registry import SUBMITTED, name_of
from distrun.spec.job import Header, Job


@dataclass(frozen=True)
class Asked:
    """A job as it was asked for."""

    job: Job
    sources: Mapping[str, str]
    """The source of each of its fields that is not a default."""
    header: Header
    """The recipe's own table."""

    @property
    def submitted_to(self) -> str:
        """The scheduler that a launch of it is submitted to; "" if it starts the nodes itself."""
        if self.job.on == "slurm":
            return "" if os.environ.get("SLURM_JOB_ID") else "slurm"
        return self.job.on if self.job.on in SUBMITTED else ""

    @property
    def nproc(self) -> int | None:
        """The ranks of a node; None: the nodes decide."""
        nproc = self.job.nproc_per_node
        return nproc if isinstance(nproc, int) else None

    def hold(self) -> None:
        """Check the job as far as that is possible without its nodes.

        Raises:
            UsageError: The job is wrong.
            MachineError: The runs directory cannot be used.
        """
        job = self.job
        require_supported_system(sys.platform)
        name_of(job)  # refuses hosts
        require_script(job)
        require_usable_runs_dir(job.runs_dir)
        for count in {job.nodes.min, job.nodes.max}:
            hold_constraints(self.header, job, count, self.nproc)

    def run_id(self, stamp: str, digits: str) -> str:
        """Return the name of a run of it; the arguments are those of `directory.new_stamp`."""
        return run_name(Program(self.job.script, module=self.job.module).name, stamp, digits)

    def record(self, run_id: str, command: Sequence[str], **more: Any) -> RunRecord:
        """Return the record of a run that has not started.

        Args:
            run_id: Its name.
            command: The command line, without secrets.
            **more: Other fields; those of `plan` are added to the grace.
        """
        plan = {"grace_s": self.job.grace, **more.pop("plan", {})}
        return RunRecord(
            run_id=run_id,
            recipe=self.job.script,
            nnodes=self.job.nodes.max,
            nproc_per_node=self.nproc or 0,
            started_at=round(time.time(), 3),
            command=list(command),
            plan=plan,
            versions=record.versions("", __version__),
            **more,
        )
