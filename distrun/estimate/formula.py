"""The formula: dimensions, layout and formats -> what one rank does in one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from distrun.estimate.allocator import reserved_nbytes
from distrun.estimate.compute import Compute
from distrun.estimate.elementwise import Elementwise
from distrun.estimate.layout import Training
from distrun.estimate.timeline import Timeline
from distrun.estimate.traffic import Traffic, padding
from distrun.estimate.units import units_of
from distrun.estimate.work import OFFLOADED, Work

_PADDED = 0.02
"""Padding above this is told."""
_COMPILED = {
    False: "compiled without FSDP: published rows need 11 to 14 % more memory than this",
    True: "compiled without FSDP: three published rows need 5 % less to 1 % more memory than this",
}
"""By whether gradients are taken to be there twice."""


def work(training: Training, stage: int = 0, *, replay: bool = True) -> Work:
    """Return what a rank of a stage of the pipeline does.

    Args:
        training: The model, how it is spread, and a step.
        stage: From 0; the first holds most activations, the last makes the logits.
        replay: Replay the allocator; else `reserved_nbytes` is the allocated peak.

    Raises:
        UsageError: The layout does not divide the model, or a number is out of range.
    """
    training.require_possible()
    tape = Timeline(training, stage).play()
    peaks = tape.peaks()
    held = reserved_nbytes(tape.events) if replay else max(peak.total for peak in peaks)
    return replace(arithmetic(training, stage), peaks=peaks, reserved_nbytes=held)


def arithmetic(training: Training, stage: int = 0) -> Work:
    """Return the same without memory, which takes longest to compute."""
    compute, traffic = Compute(training, stage), Traffic(training, stage)
    return Work(
        parameters=training.shape.parameters,
        tokens=training.step.local_tokens(training.layout) * training.step.accumulate,
        samples="tokens",
        collectives=traffic.collectives(),
        matmuls=compute.matmuls(),
        attention=compute.attention(),
        moved_nbytes=Elementwise(training, stage).moved(),
        peaks=(),
        reserved_nbytes=0,
        input_nbytes=training.step.input_nbytes,
        offloads=training.layout.offload,
        host_nbytes=traffic.host_nbytes(),
        notes=tuple(_notes(training, stage)),
    )


def extreme_stages(training: Training) -> tuple[int, ...]:
    """Return the stages of the pipeline that can need most memory or time."""
    return tuple(dict.fromkeys((0, training.layout.pp - 1)))


def _notes(training: Training, stage: int) -> Iterator[str]:
    layout, shape = training.layout, training.shape
    more = padding(units_of(training, stage).all)
    if layout.fully_sharded and more > _PADDED:
        few = min(weight.rows for weight in shape.block() if weight.rest > 1)
        yield (
            f"FSDP pads {few} rows to a multiple of {layout.shard}: {more:+.0%} traffic; fewer"
            " ranks a copy (HSDP) would not"
        )
    if layout.cp > 1:
        yield "context parallelism has not been validated against measurements"
    if layout.cp > 1 and training.formats.ring_by_hand:
        yield (
            "--attention ring multiplies matrices of float32 and writes the scores to memory;"
            " --attention torch, for GPUs alone, does not"
        )
    if shape.experts:
        yield "experts are taken to get equally many tokens; routing decides, and is not validated"
    if training.formats.compute == 1:
        yield "float8 has not been validated against measurements"
    if layout.offload:
        yield OFFLOADED
    if layout.pp > 1:
        yield "pipelines have been validated for few published layouts only"
    if training.formats.compiled and not layout.fully_sharded:
        yield _COMPILED[training.formats.doubles_gradients]
