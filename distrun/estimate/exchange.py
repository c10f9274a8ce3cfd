"""What the control world and the tracer's child tell each other: JSON on stdin and stdout."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from distrun.estimate.work import Attention, Collective, Matmul, Peak, Work


@dataclass(frozen=True)
class Order:
    """What the child shall trace.

    Attributes:
        script: Path of the script.
        args: Its command line.
        world_size: Ranks of the job.
        nproc_per_node: Ranks of a node.
        rank: The rank to trace.
        exact: All layers, and not two small numbers of them.
        shapes: Shape, stride and dtype of what a pipeline stage receives, as stage 0 told them.
    """

    script: str
    args: list[str]
    world_size: int
    nproc_per_node: int
    rank: int = 0
    exact: bool = False
    shapes: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Trace:
    """One step of one rank, of a model with so many layers.

    Attributes:
        layers: Of the whole model; 0: the script did not say.
        work: What the rank does.
        gradients: dtype and bytes of what DistributedDataParallel reduces, in the order in which
            it becomes ready.
        bucket_nbytes: Size that closes a bucket of it.
    """

    layers: int
    work: Work
    gradients: list[tuple[str, int]] = field(default_factory=list)
    bucket_nbytes: int = 0


@dataclass(frozen=True)
class Answer:
    """What the child has found.

    Attributes:
        traces: Of one number of layers, or of two.
        layers: Of the model that was asked for; 0: that of the only trace.
        shapes: As in the order, told by stage 0 of a pipeline; else [].
        peaks: Of the model that was asked for, by following each moment of the two traces; []: not
            known.
    """

    traces: list[Trace]
    layers: int = 0
    shapes: list[list[Any]] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """Why the child has nothing to tell.

    Attributes:
        message: What was raised, and its message, in one line.
        file: The script's file, or one beside it, that was at work; "" if none was.
        line: Its line.
        hint: What to do; "" if nothing is known.
    """

    message: str
    file: str = ""
    line: int = 0
    hint: str = ""


def order_from(text: str) -> Order:
    """Read an order."""
    return Order(**json.loads(text))


def told(answer: Answer | Fault) -> str:
    """Write an answer, or a fault, as one line."""
    return json.dumps({type(answer).__name__.lower(): asdict(answer)})


def heard(text: str) -> Answer | Fault:
    """Read what `told` has written.

    Raises:
        ValueError: It is something else.
    """
    read = json.loads(text)
    if "fault" in read:
        return Fault(**read["fault"])
    answer = read["answer"]
    peaks = [Peak(**peak) for peak in answer["peaks"]]
    traces = [_trace(trace) for trace in answer["traces"]]
    return Answer(traces, answer["layers"], answer["shapes"], peaks)


def _trace(read: dict[str, Any]) -> Trace:
    gradients = [(str(dtype), int(nbytes)) for dtype, nbytes in read["gradients"]]
    return Trace(read["layers"], work_from(read["work"]), gradients, read["bucket_nbytes"])


def work_from(read: dict[str, Any]) -> Work:
    """Return the work that `dataclasses.asdict` has made a dictionary of."""
    parts = {
        "beside": tuple(read["beside"]),
        "collectives": tuple(Collective(**part) for part in read["collectives"]),
        "matmuls": tuple(Matmul(**part) for part in read["matmuls"]),
        "attention": tuple(Attention(**part) for part in read["attention"]),
        "peaks": tuple(Peak(**part) for part in read["peaks"]),
        "notes": tuple(read["notes"]),
    }
    return Work(**{**read, **parts})
