"""Pipelines of torch.distributed.pipelining in a trace: one stage, whose peers tell it nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.distributed.pipelining.schedules import PipelineScheduleMulti, PipelineScheduleSingle

from distrun.estimate.tracer.recorder import Recorder
from distrun.torch_fakes import stages_agree


def stage_alone(shapes: list[list[Any]]) -> None:
    """Make schedules run one stage without the others.

    Args:
        shapes: Shape, stride and dtype of what stages pass on; filled in if stage 0 is here.
    """
    stages_agree(shapes)
    for kind in (PipelineScheduleSingle, PipelineScheduleMulti):
        setattr(kind, "step", _noted(kind.step))  # noqa: B010 - else mypy forbids it


def _noted(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def noted(*args: Any, **kwargs: Any) -> Any:
        Recorder.inside_schedule = True
        try:
            return step(*args, **kwargs)
        finally:
            Recorder.inside_schedule = False

    return noted
