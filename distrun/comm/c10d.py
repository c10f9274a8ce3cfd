"""The transport over torch's process groups: gloo on CPU, NCCL on GPU.

It calls the single-tensor methods of `torch.distributed.ProcessGroup`, because the functions of
`torch.distributed` cost some 5 µs more per call. The list forms are not used: they copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from datetime import timedelta
from threading import Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import (
    AllreduceOptions,
    AllToAllOptions,
    BarrierOptions,
    BroadcastOptions,
    ReduceOp,
    ReduceOptions,
    ReduceScatterOptions,
)

from distrun import torch_private
from distrun.comm.errors import CommUsageError
from distrun.comm.transport import Transport, Work

_REDUCE_OPS = {
    "sum": ReduceOp.SUM,
    "mean": ReduceOp.AVG,
    "prod": ReduceOp.PRODUCT,
    "max": ReduceOp.MAX,
    "min": ReduceOp.MIN,
    "band": ReduceOp.BAND,
    "bor": ReduceOp.BOR,
    "bxor": ReduceOp.BXOR,
}


class _Done:
    """A message that the backend has already completed."""

    def wait(self) -> bool:
        return True

    def is_completed(self) -> bool:
        return True


_DONE = _Done()


class _GlooMessage:
    """A gloo send or recv: it is completed only while a thread waits for it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: Future[object] | None = None

    def wait(self) -> object:
        return self._work.wait() if self._waiting is None else self._waiting.result()

    def is_completed(self) -> bool:
        if self._waiting is None:
            self._waiting = Future()
            Thread(target=self._wait_for, args=(self._waiting,), daemon=True).start()
        return self._waiting.done()

    def _wait_for(self, waiting: Future[object]) -> None:
        try:
            waiting.set_result(self._work.wait())
        except BaseException as error:  # raised again in wait()
            waiting.set_exception(error)


def _reducing(options: type, async_op: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, op in _REDUCE_OPS.items():
        made[name] = options()
        made[name].reduceOp = op
        made[name].asyncOp = async_op
    return made


_ALL_REDUCE_OPTIONS = {flag: _reducing(AllreduceOptions, flag) for flag in (False, True)}
_REDUCE_SCATTER_OPTIONS = {flag: _reducing(ReduceScatterOptions, flag) for flag in (False, True)}


class C10dTransport(Transport):
    """The messages of one process group.

    Args:
        group: The process group.
        device: The device of its tensors.
        backend: The backend for tensors of that device.
        timeout_s: Timeout of its subgroups.
        owned: Whether `close` destroys it.
    """

    _last_serial = 0
    """Counts the subgroups of subgroups that this process has made."""

    def __init__(
        self,
        group: dist.ProcessGroup,
        device: torch.device,
        backend: str,
        timeout_s: float,
        *,
        owned: bool = True,
    ) -> None:
        self._group: dist.ProcessGroup | None = group
        self._timeout_s = timeout_s
        self._owned = owned
        self.rank = group.rank()
        self.world_size = group.size()
        self.device = device
        self.backend = backend
        on_cpu = torch.device("cpu") in torch_private.device_types(group)
        self.control_device = torch.device("cpu") if on_cpu else device

    def all_reduce(self, x: Tensor, op: str, async_op: bool) -> Work:
        return self.group.allreduce([x], _ALL_REDUCE_OPTIONS[async_op][op]) or _DONE

    def reduce(self, x: Tensor, dst: int, op: str, async_op: bool) -> Work:
        options = ReduceOptions()
        options.reduceOp = ReduceOp(_REDUCE_OPS[op])
        options.rootRank = dst
        options.asyncOp = async_op
        return self.group.reduce([x], options) or _DONE

    def broadcast(self, x: Tensor, src: int, async_op: bool) -> Work:
        options = BroadcastOptions()
        options.rootRank = src
        options.asyncOp = async_op
        return self.group.broadcast([x], options) or _DONE

    def all_gather(self, out: Tensor, x: Tensor, async_op: bool) -> Work:
        options = torch_private.AllgatherOptions()
        options.asyncOp = async_op
        work = torch_private.all_gather_single(self.group, out, x, options)
        return cast(Work, work or _DONE)

    def reduce_scatter(self, out: Tensor, x: Tensor, op: str, async_op: bool) -> Work:
        options = _REDUCE_SCATTER_OPTIONS[async_op][op]
        work = torch_private.reduce_scatter_single(self.group, out, x, options)
        return cast(Work, work or _DONE)

    def all_to_all(
        self, out: Tensor, x: Tensor, out_sizes: Sequence[int], sizes: Sequence[int], async_op: bool
    ) -> Work:
        options = AllToAllOptions()
        options.asyncOp = async_op
        return self.group.alltoall_base(out, x, list(out_sizes), list(sizes), options) or _DONE

    def send(self, x: Tensor, dst: int, tag: int) -> Work:
        return self._message(self.group.send([x], dst, tag))

    def recv(self, x: Tensor, src: int, tag: int) -> Work:
        return self._message(self.group.recv([x], src, tag))

    def _message(self, work: Work) -> Work:
        return _GlooMessage(work) if self.backend == "gloo" else work

    def barrier(self, async_op: bool) -> Work:
        options = BarrierOptions()
        options.device = self.device
        options.asyncOp = async_op
        return self.group.barrier(options) or _DONE

    def subgroup(self, groups: Sequence[Sequence[int]], name: str) -> C10dTransport | None:
        whole = self.world_size == dist.get_world_size()
        serial = 0 if whole else self._serial_of_parts()
        mine = None
        for ranks in groups:
            if whole or self.rank in ranks:
                members = [dist.get_global_rank(self.group, rank) for rank in ranks]
                group = self._new_group(members, serial, name)
                if self.rank in ranks:
                    mine = C10dTransport(group, self.device, self.backend, self._timeout_s)
        # torch does not wait here (unless TORCH_DIST_INIT_BARRIER says so): a rank that closes its
        # part at once would break the connections that a peer is still making.
        self.barrier(False).wait()
        return mine

    def _new_group(self, members: list[int], serial: int, name: str) -> dist.ProcessGroup:
        """Make a group: in the whole world every rank makes all, in a part only its own."""
        timeout = timedelta(seconds=self._timeout_s)
        with torch_private.naming_by(serial) if serial else nullcontext():
            group: dist.ProcessGroup = dist.new_group(
                members,
                timeout=timeout,
                use_local_synchronization=serial > 0,
                group_desc=name or None,
            )
        return group

    def _serial_of_parts(self) -> int:
        """Agree with the ranks of this group on a number that none of them has used before."""
        mine = torch.tensor([C10dTransport._last_serial + 1], device=self.control_device)
        self.all_reduce(mine, "max", False).wait()
        C10dTransport._last_serial = int(mine)
        return C10dTransport._last_serial

    @property
    def group(self) -> dist.ProcessGroup:
        """The process group, until it is closed."""
        if self._group is None:
            raise CommUsageError("the process group was closed")
        return self._group

    def close(self, *, failed: bool) -> None:
        # A user may keep the world, but not the group: gloo's threads abort the process if they
        # still run when the interpreter ends.
        group, self._group = self._group, None
        if group is None or not self._owned or not dist.is_initialized():
            return
        if failed and self.backend == "nccl":
            group.abort()  # else it may wait for peers that wait for others in turn
        dist.destroy_process_group(group)
