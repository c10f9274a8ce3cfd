"""The same estimate as the formula's, by a trace of the script itself."""

from __future__ import annotations

from distrun.api.estimate import (
    Asked,
    Estimate,
    measured,
    plan_of,
    require_numbers,
    scale_of,
    script_named,
)
from distrun.errors import UsageError
from distrun.estimate.network import Cluster
from distrun.estimate.outcome import judged, mesh_of, pace_of
from distrun.estimate.recipe import Planned
from distrun.estimate.step_time import Pace
from distrun.estimate.trace import trace
from distrun.spec.estimate import gpus_of


def traced(asked: Asked) -> Estimate:
    """Return what a job will need and take, by a trace of its script.

    Raises:
        UsageError: There is no script, or it fails in the trace as it would on the cluster.
    """
    require_numbers(asked)
    path = script_named(asked)
    if path is None:
        raise UsageError("--trace needs a script", "distrun estimate train.py --trace --gpus 1x8")
    gpus = gpus_of(asked.gpus, asked.nodes, asked.nproc_per_node)
    kind, curves, sources = measured(asked, gpus)
    source = path.read_text(encoding="utf-8", errors="replace")
    plan = plan_of(asked, gpus.world_size)[1] if "class Config(TextConfig)" in source else None
    args = [*asked.words[1:], *_assumed(plan)]
    work = trace(
        path,
        args,
        world_size=gpus.world_size,
        nproc_per_node=gpus.nproc_per_node,
        exact=asked.exact,
    )
    scale = None if plan is None else scale_of(asked, gpus, curves, sources)
    cluster = None if kind is None else Cluster(kind, gpus.nnodes, gpus.nproc_per_node, curves)
    mesh = mesh_of(work) if plan is None else plan.mesh
    pace = Pace(mesh) if plan is None else pace_of(plan)
    found = judged([work], mesh, pace, cluster, scale)
    return Estimate(
        name=path.name,
        gpus=gpus,
        plan=plan,
        found=found,
        kind=kind,
        notes=((*plan.assumed,) if plan else ()) + work.notes,
        sources=sources,
        script=path,
        tokens=asked.tokens,
        price=asked.price,
    )


def _assumed(plan: Planned | None) -> list[str]:
    """Return the flags that the plan has assumed, as the recipe takes them."""
    if plan is None:
        return []
    step, data = plan.training.step, plan.training.layout.data
    return ["--batch-size", str(step.rows * step.accumulate * data)]
