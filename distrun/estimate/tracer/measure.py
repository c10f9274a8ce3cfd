"""Runs something until its second step is done, and puts the record together."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer

from distrun import torch_fakes
from distrun.estimate.exchange import Trace
from distrun.estimate.tracer import fakes
from distrun.estimate.tracer.devices import Inputs, OnGpu
from distrun.estimate.tracer.ledger import Ledger
from distrun.estimate.tracer.recorder import Recorder
from distrun.estimate.tracer.replica import REDUCERS
from distrun.estimate.tracer.sharding import Sharded
from distrun.estimate.tracer.steps import Steps, StepsAreDoneError
from distrun.estimate.work import OFFLOADED, Attention, Collective, Matmul, Work

_Part = TypeVar("_Part", bound=Any)


class NoStepsError(RuntimeError):
    """The script has ended, and its optimizer has not made two steps."""


LEDGERS: list[Ledger] = []
"""Of the traces so far: what their peaks grow to is computed from all of it."""


def traced(run: Callable[[], object], layers: int = 0, parameters: int = 0) -> Trace:
    """Run a script, or its parts, until two steps are done.

    Args:
        run: What makes the steps.
        layers: Of the model, if that is known.
        parameters: Of the whole model; 0: all that optimizers of this rank update.

    Raises:
        NoStepsError: It ended before.
    """
    REDUCERS.clear()
    fakes.NOTES.clear()
    Sharded.forget()
    fake = torch_fakes.fake_mode()
    recorder = Recorder(fake)
    steps = Steps(recorder)
    on_gpu = OnGpu()
    torch_fakes.run_backward_in(on_gpu)
    gc.disable()
    try:
        with on_gpu, fake, recorder:
            run()
    except StepsAreDoneError:
        pass
    else:
        raise NoStepsError(
            f"the script ended after {steps.done} step{'s' * (steps.done != 1)} of its optimizer;"
            " a trace needs 2"
        )
    finally:
        steps.remove()
        gc.enable()
    LEDGERS.append(recorder.ledger)
    work = _work(recorder, steps, parameters)
    sizes = [size for reducer in REDUCERS for size in reducer.sizes]
    return Trace(layers, work, sizes, REDUCERS[0].cap_nbytes if REDUCERS else 0)


def shares_optimizer(trace: Trace) -> bool:
    """Return whether ranks share the optimizer by whole parameters, which is not linear."""
    return _SHARES_OPTIMIZER in trace.work.notes


_SHARES_OPTIMIZER = (
    "ZeroRedundancyOptimizer gives whole parameters to ranks: another rank may hold more"
)


def _work(recorder: Recorder, steps: Steps, parameters: int) -> Work:
    notes = dict(fakes.NOTES)
    if Sharded.offloads:
        notes[OFFLOADED] = None
    if any(isinstance(optimizer, ZeroRedundancyOptimizer) for optimizer in steps.optimizers):
        notes[_SHARES_OPTIMIZER] = None
    if not recorder.collectives and dist.get_world_size() > 1:
        notes["no rank sends anything to another: each would train a model of its own"] = None
    axes, tokens = axes_of_groups(), recorder.tokens
    sizes = {call.group: call.group_size for call, _ in recorder.collectives}
    return Work(
        parameters=parameters or Sharded.numel or sum(p.numel() for p in steps.parameters),
        tokens=tokens or steps.samples,
        samples="tokens" if tokens else "samples",
        collectives=_summed(
            Collective(
                call.op,
                axes(call.group, call.group_size),
                *call[2:],
                count,
                phase,
                recurs=(call, phase) in recorder.recurring,
            )
            for (call, phase), count in recorder.collectives.items()
            if call.group_size > 1
        ),
        beside=tuple(sorted({axes(group, sizes[group]) for group in recorder.beside & {*sizes}})),
        matmuls=_summed(
            Matmul(shape.m, shape.n, shape.k, shape.times * count, shape.dtype, phase)
            for (shape, phase), count in recorder.matmuls.items()
        ),
        attention=_summed(
            Attention(*call, count, phase) for (call, phase), count in recorder.attention.items()
        ),
        moved_nbytes=dict(recorder.moved),
        peaks=recorder.ledger.peaks(),
        reserved_nbytes=recorder.ledger.reserved_nbytes(),
        input_nbytes=Inputs.nbytes,
        offloads=Sharded.offloads,
        host_nbytes=recorder.sharded * steps.parameters[0].element_size() * Sharded.offloads,
        kernels=recorder.kernels,
        notes=tuple(notes),
    )


def _summed(parts: Iterable[_Part]) -> tuple[_Part, ...]:
    """Return the parts with those that differ in their count alone put together."""
    counts: Counter[_Part] = Counter()
    for part in parts:
        counts[replace(part, count=0)] += part.count
    return tuple(replace(part, count=count) for part, count in counts.items())


def axes_of_groups() -> Callable[[str, int], str]:
    """Return a function from a group's name and size to the mesh axis that it runs along."""
    names: dict[str, str] = {}
    for mesh in fakes.MESHES:
        for place, axis in enumerate(mesh.mesh_dim_names or ()):
            names[mesh.get_group(place).group_name] = axis
    world = torch_fakes.default_group_name()
    return lambda group, size: names.get(group) or ("world" if group == world else f"{size} ranks")
