"""Writes one checkpoint at a time while training continues."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse, async_save
from torch.distributed.tensor import DTensor

from distrun.dcp.choose import drop_old
from distrun.dcp.metadata import CheckpointError
from distrun.dcp.storage import Writer

GROUP = "checkpoints"
_TIMEOUT_S = 1800.0
"""Ranks write during training, and the slowest disk decides."""


def new_group() -> dist.ProcessGroup:
    """Make a group of all ranks, with a name that differs from the groups of training."""
    timeout = timedelta(seconds=_TIMEOUT_S)
    group = dist.new_group(backend="gloo", timeout=timeout, group_desc=GROUP)
    assert isinstance(group, dist.ProcessGroup)
    return group


class Saver:
    """Saves into a directory that all ranks share.

    Args:
        directory: The directory of the checkpoints; it is made.
        group: A group for this only: DCP's collectives run in a thread of their own.
        keep: How many checkpoints to keep.
        about: Fields for every manifest.
        say: Prints a line for the user.
        report: Called with the step and the time of a checkpoint that is whole.

    Raises:
        CheckpointError: Not all ranks see what rank 0 writes there; raised on all ranks.
    """

    def __init__(
        self,
        directory: Path,
        group: dist.ProcessGroup,
        keep: int,
        about: Mapping[str, Any],
        say: Callable[[str], None],
        report: Callable[[int, float], None] = lambda step, time_s: None,
    ) -> None:
        self._directory, self._group, self._keep = directory, group, keep
        self._about, self._say, self._report = about, say, report
        self._pending: Future[Any] | AsyncSaveResponse | None = None
        self._step, self._began_at = -1, 0.0
        self.latest = ""
        """The last finished checkpoint, "" if there is none."""
        _require_shared(directory, group)

    def save(self, done: int, state: Callable[[], dict[str, Tensor]]) -> bool:
        """Copy the state to the CPU and write it in a thread; False if some rank's is not finite.

        Args:
            done: How many steps are done.
            state: Returns what to save, on each rank its part.
        """
        self.finish()
        self._began_at = time.monotonic()
        path = self._path(done)
        if self._group.rank() == 0:  # left by an earlier attempt
            shutil.rmtree(path.with_name(path.name + ".partial"), ignore_errors=True)
        tensors = state()
        good = torch.tensor(int(all(map(_is_finite, tensors.items()))))
        dist.all_reduce(good, dist.ReduceOp.MIN, group=self._group)  # and rank 0 has cleaned up
        if not good:
            return False
        self._step = done
        writer = Writer(path, done, lambda: drop_old(path.parent, self._keep), self._about)
        self._pending = async_save(tensors, storage_writer=writer, process_group=self._group)
        return True

    def look(self) -> None:
        """Call `finish` if the writing is done."""
        if isinstance(self._pending, Future) and self._pending.done():
            self.finish()

    def finish(self, *, last: bool = False) -> None:
        """Wait for the checkpoint that is being written; print why it failed, if it did.

        Raises:
            CheckpointError: It failed, and no other follows; raised on all ranks.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        path = self._path(self._step)
        try:
            assert isinstance(pending, Future)
            pending.result()
        except (Exception, CheckpointException) as error:  # any error of the file system
            shutil.rmtree(path.with_name(path.name + ".partial"), ignore_errors=True)
            problem = f"checkpoint {path} could not be written: {_root_cause(error)}"
            if last:
                raise CheckpointError(problem) from None
            self._say(f"{problem}; training goes on")
        else:
            self.latest = str(path)
            self._report(self._step, time.monotonic() - self._began_at)

    def _path(self, done: int) -> Path:
        return self._directory / f"step-{done:08d}"


def _is_finite(item: tuple[str, Tensor]) -> bool:
    name, tensor = item
    if name.startswith("rng."):  # where NaN means that there is none
        return True
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return not local.is_floating_point() or bool(local.isfinite().all())


def _require_shared(directory: Path, group: dist.ProcessGroup) -> None:
    """Refuse a directory that ranks do not share, before the first step."""
    told: list[Any] = [uuid.uuid4().hex, ""]
    token = directory / f".token-{told[0]}"
    if group.rank() == 0:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            token.touch()
        except OSError as error:
            told[1] = str(error)
    dist.broadcast_object_list(told, group_src=0, group=group)
    if told[1]:
        raise CheckpointError(f"no checkpoint can be written: {told[1]} (--no-save writes none)")
    found: list[Any] = [None] * group.size()
    seen = (directory / f".token-{told[0]}").exists()
    dist.all_gather_object(found, seen, group=group)
    if group.rank() == 0:
        token.unlink()
    if blind := [str(rank) for rank, there in enumerate(found) if not there]:
        ranks = f"rank {blind[0]} does" if len(blind) == 1 else f"ranks {', '.join(blind)} do"
        raise CheckpointError(
            f"checkpoints need a directory that all nodes share: {ranks} not see what rank 0"
            f" writes into {directory} (--checkpoint-dir names another, --no-save writes none)"
        )


def _root_cause(error: BaseException) -> str:
    if isinstance(error, CheckpointException):  # DCP's own, on every rank; no Exception
        error = next(iter(error.failures.values()))[0]
    return str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
