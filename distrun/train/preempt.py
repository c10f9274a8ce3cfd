"""Lets all ranks leave after the same step when a job is to end: two lines in a training loop.

    from distrun.train import preempt

    for step in range(steps):
        train_step()
        if preempt.wanted():
            save(step)
            break

SIGTERM, SIGUSR1 and SIGUSR2 ask for it, to whichever rank they come: from `distrun stop`, from
Slurm, Kubernetes or torchrun. `distrun save` asks for a checkpoint alone: `preempt.save_wanted()`.
Handlers that the script has set before are called, too.
"""

from __future__ import annotations

import signal
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from distrun.signals import SAVE
from distrun.train import milestones

GROUP = "preempt"
_ENDING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_TIMEOUT = timedelta(hours=12)
"""A rank that is late, for whatever reason, is found by the launcher or by the script's groups."""


class _Wishes:
    """What this rank was asked for, and what all ranks have agreed on."""

    def __init__(self) -> None:
        self.to_end = self.to_save = False
        self.agreed_to_save = False
        self.steps = 0
        self.group: dist.ProcessGroup | None = None
        self.before: dict[int, Any] = {}


_wishes = _Wishes()


def watch() -> None:
    """Handle the signals from now on; `wanted` does it at its first call.

    Call it in the main thread, early: a signal that comes before it ends the rank. A signal that is
    ignored stays so.
    """
    for signum in (*_ENDING, *filter(None, [SAVE])):
        if signum not in _wishes.before and signal.getsignal(signum) != signal.SIG_IGN:
            _wishes.before[signum] = signal.signal(signum, _on_signal)


def unwatch() -> None:
    """Give the signals their handlers of before."""
    for signum, handler in _wishes.before.items():
        signal.signal(signum, handler)
    _wishes.before.clear()
    _wishes.to_end = _wishes.to_save = _wishes.agreed_to_save = False


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if signum == SAVE:
        _wishes.to_save = True
    else:
        _wishes.to_end = True
    before = _wishes.before.get(signum)
    if callable(before):
        before(signum, frame)


def wishes() -> tuple[bool, bool]:
    """Return whether this rank was asked to end, and to save: for an agreement of one's own."""
    return _wishes.to_end, _wishes.to_save


def agree(to_end: bool, to_save: bool) -> None:
    """Note what all ranks have agreed on."""
    _wishes.agreed_to_save = to_save
    _wishes.to_save = _wishes.to_save and not to_save
    _wishes.to_end = _wishes.to_end or to_end


def wanted(step: int | None = None) -> bool:
    """Return whether the job is to end: the same on all ranks; a collective call.

    Call it on every rank at the same places: once a step, and in warm-up, evaluation or
    accumulation if they take long. One all_reduce of 2 bytes in a gloo group of its own
    (torch.distributed.new_group, made at the first call) carries the answer.

    Args:
        step: Steps that are done, for the launcher's message; None: the calls so far.
    """
    watch()
    _wishes.steps = _wishes.steps + 1 if step is None else step
    to_end, to_save = _over_all_ranks(*wishes())
    agree(to_end, to_save)
    if to_end and (not dist.is_initialized() or dist.get_rank() == 0):
        milestones.preempted(_wishes.steps)
    return to_end


def save_wanted() -> bool:
    """Return whether the last agreement asked for a checkpoint; no collective."""
    return _wishes.agreed_to_save


def _over_all_ranks(*flags: bool) -> tuple[bool, ...]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flags
    if _wishes.group is None:
        group = dist.new_group(backend="gloo", timeout=_TIMEOUT, group_desc=GROUP)
        assert isinstance(group, dist.ProcessGroup)
        _wishes.group = group
    either = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(either, dist.ReduceOp.MAX, group=_wishes.group)
    return tuple(map(bool, either.tolist()))
