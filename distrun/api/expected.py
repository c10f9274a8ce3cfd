"""What a job that is about to start is expected to need and to take."""

from __future__ import annotations

from distrun.api.estimate import Asked, Estimate, estimate
from distrun.api.prepare import Prepared
from distrun.errors import UsageError
from distrun.estimate.kinds import of_device

_CPU = "cpu"


def prediction_of(found: Estimate) -> dict[str, float]:
    """Return what the record of a run keeps, to be compared with what is measured."""
    outcome = found.found
    told: dict[str, float] = {}
    if found.kind is not None and found.kind.name != _CPU:  # where the process is measured
        told["peak_memory_nbytes"] = outcome.memory.allocated
    if outcome.time is not None:
        told["step_time_s"] = outcome.time.total
    return told


def expected(prepared: Prepared) -> Estimate:
    """Return the estimate of a job on the machines that it was planned for.

    Raises:
        UsageError: The formula does not know the script, or the GPUs.
    """
    plan, site = prepared.plan, prepared.site
    nnodes = 1 if site.emulated else plan.nnodes
    nproc_per_node = plan.world_size // nnodes
    gpus = site.head.node.nvml.gpus
    name = _CPU
    if len(gpus) >= nproc_per_node:
        kind = of_device(gpus[0].name, gpus[0].memory_total_nbytes)
        if kind is None:
            raise UsageError(
                f"--estimate: {gpus[0].name} is none of the known kinds of GPU",
                "distrun estimate --kinds FILE.toml describes others",
            )
        name = kind.name
    words = (plan.program.script, *plan.program.args)
    return estimate(Asked(words=words, gpus=f"{nnodes}x{nproc_per_node}:{name}"))
