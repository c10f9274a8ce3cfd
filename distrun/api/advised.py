"""The best layouts for a model on given GPUs: by the formula, the first ones checked by a trace."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from distrun.api.estimate import Asked, Estimate, as_json, estimate, measured
from distrun.api.recipes import path_of
from distrun.errors import UsageError
from distrun.estimate.advice import Advice, Scored, best, revised
from distrun.estimate.candidates import Candidate
from distrun.estimate.memory import Memory
from distrun.estimate.network import Cluster
from distrun.estimate.trace import trace
from distrun.spec.estimate import gpus_of

__all__ = [
    "TRACED",
    "Advice",
    "Scored",
    "advice_as_json",
    "advise",
    "can_trace",
    "checked",
    "launch_words",
]

TRACED = 3
"""Of those that fit, so many are traced, at once."""
_PASSES = 3


def advise(asked: Asked) -> tuple[Estimate, Advice]:
    """Return the estimate of what was asked, and the best layouts for the same model and GPUs.

    Raises:
        UsageError: The job cannot be, or the kind of GPU is not named.
    """
    gpus = gpus_of(asked.gpus, asked.nodes, asked.nproc_per_node)
    if gpus.kind is None:
        raise UsageError("--best needs the kind of GPU", "--gpus 8x8:h100")
    kind, curves, _ = measured(asked, gpus)
    assert kind is not None  # it is named
    found = estimate(asked, with_remedies=False)
    assert found.plan is not None  # the formula has made one
    return found, best(found.plan, Cluster(kind, gpus.nnodes, gpus.nproc_per_node, curves))


def can_trace(found: Estimate) -> bool:
    """Return whether layouts can be traced: there is a script, and torch to run it with."""
    return found.script is not None and importlib.util.find_spec("torch") is not None


def checked(found: Estimate, advice: Advice) -> Advice:
    """Return the advice after a trace of the first layouts that fit.

    Their memory is then the trace's, and one whose script fails there is refused with its words.
    What runs on GPUs alone is left as it is.

    Args:
        found: The estimate of what was asked, of a script.
        advice: By the formula.
    """
    places = [place for place, row in enumerate(advice.rows) if row.fits][:TRACED]
    with ThreadPoolExecutor(TRACED) as pool:  # each child is one thread, of some 300 MiB
        told = pool.map(lambda place: _traced(found, advice.rows[place]), places)
        shown = {place: one for place, one in zip(places, told, strict=True) if one is not None}
    return revised(advice, found.gpus.nproc_per_node, shown)


def _traced(found: Estimate, row: Scored) -> Memory | str | None:
    """Return what the trace of a row has shown: its memory, or why it would not run.

    None: it cannot be traced.

    Micro-batches after the third need no more memory than the third; but torch's pipelines have
    buffers for each, and are traced with all of them. What the allocator holds
    beyond live bytes does not grow by layers evenly: it stays the formula's, which has them all.
    """
    one = row.candidate
    if "torch" in one.flags:  # context_parallel has no kernels for the CPU
        return None
    if one.plan.training.layout.pp == 1:
        one = one.with_passes(min(_PASSES, one.plan.training.step.accumulate))
    script, args = _script_and_args(found, one)
    gpus = found.gpus
    try:
        work = trace(script, args, world_size=gpus.world_size, nproc_per_node=gpus.nproc_per_node)
    except UsageError as error:
        return f"fails: {error.message}"
    more = work.allocated - row.memory.allocated
    sizes = {name: getattr(row.memory, name) + more for name in ("allocated", "reserved", "device")}
    return replace(row.memory, **sizes)


def _script_and_args(found: Estimate, one: Candidate) -> tuple[Path, list[str]]:
    """Return the recipe that trains in a layout, and its flags."""
    assert found.script is not None  # else there is nothing to launch
    beside = found.script.with_name(f"{one.recipe}.py")
    script = beside if beside.is_file() else path_of(one.recipe)
    return script, [*found.kept, *one.words]


def launch_words(found: Estimate, one: Scored) -> list[str]:
    """Return the command that trains in a layout, [] if no script was asked about."""
    if found.script is None:
        return []
    gpus = found.gpus
    script, args = _script_and_args(found, one.candidate)
    nodes = ["--nodes", str(gpus.nnodes)] if gpus.nnodes > 1 else []
    launch = ["distrun", "launch", *nodes, "--nproc-per-node", str(gpus.nproc_per_node)]
    return [*launch, str(script), *args]


def advice_as_json(found: Estimate, advice: Advice) -> dict[str, Any]:
    """Return the rows of a search for JSON."""
    rows = [
        {
            "layout": one.candidate.family,
            "mesh": dict(one.candidate.plan.mesh),
            "recipe": one.candidate.recipe,
            "command": launch_words(found, one),
            "device_nbytes": one.memory.device,
            "step_s": one.time.total,
            "fits": one.fits,
            "traced": one.traced,
            "why": one.why,
        }
        for one in advice.rows
    ]
    return {"schema": 1, "tried": advice.tried, "asked": as_json(found), "rows": rows}
