"""Messages by torch's process groups: gloo on CPU, NCCL on GPU.

The single-tensor methods of `torch.distributed.ProcessGroup`, below `torch.distributed`'s
functions, which cost some 5 µs a call more; never the list forms, which copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from threading import Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import (
    AllgatherOptions,
    AllreduceOptions,
    AllToAllOptions,
    BarrierOptions,
    BroadcastOptions,
    ReduceOp,
    ReduceOptions,
    ReduceScatterOptions,
)

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
_GROUP: Any = dist.ProcessGroup
# torch 2.12 gave these two new names, and warns of the old ones.
_ALL_GATHER = getattr(_GROUP, "all_gather_single", None) or _GROUP._allgather_base
_REDUCE_SCATTER = getattr(_GROUP, "reduce_scatter_single", None) or _GROUP._reduce_scatter_base


class _Done:
    """A message that the backend has already seen to."""

    def wait(self) -> bool:
        return True

    def is_completed(self) -> bool:
        return True


_DONE = _Done()


class _GlooLetter:
    """A send or recv of gloo's, which learns that it is done only when somebody waits for it."""

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
        except BaseException as error:  # raised where the caller waits
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
        device: Where tensors are.
        backend: What carries those.
        timeout_s: For groups that are made of parts of it.
        owned: Whether `close` destroys it.
    """

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
        on_cpu = torch.device("cpu") in group._device_types
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
        options = AllgatherOptions()
        options.asyncOp = async_op
        return cast(Work, _ALL_GATHER(self.group, out, x, options) or _DONE)

    def reduce_scatter(self, out: Tensor, x: Tensor, op: str, async_op: bool) -> Work:
        options = _REDUCE_SCATTER_OPTIONS[async_op][op]
        return cast(Work, _REDUCE_SCATTER(self.group, out, x, options) or _DONE)

    def all_to_all(
        self, out: Tensor, x: Tensor, out_sizes: Sequence[int], sizes: Sequence[int], async_op: bool
    ) -> Work:
        options = AllToAllOptions()
        options.asyncOp = async_op
        return self.group.alltoall_base(out, x, list(out_sizes), list(sizes), options) or _DONE

    def send(self, x: Tensor, dst: int, tag: int) -> Work:
        return self._letter(self.group.send([x], dst, tag))

    def recv(self, x: Tensor, src: int, tag: int) -> Work:
        return self._letter(self.group.recv([x], src, tag))

    def _letter(self, work: Work) -> Work:
        return _GlooLetter(work) if self.backend == "gloo" else work

    def barrier(self, async_op: bool) -> Work:
        options = BarrierOptions()
        options.device = self.device
        options.asyncOp = async_op
        return self.group.barrier(options) or _DONE

    def subgroup(self, groups: Sequence[Sequence[int]]) -> C10dTransport | None:
        whole = self.world_size == dist.get_world_size()
        if not whole:
            self._require_like_histories()
        mine = None
        for ranks in groups:
            if whole or self.rank in ranks:
                group = dist.new_group(
                    [dist.get_global_rank(self.group, rank) for rank in ranks],
                    timeout=timedelta(seconds=self._timeout_s),
                    # Of the whole world, every rank makes every group; of a part, its own.
                    use_local_synchronization=not whole,
                )
                if self.rank in ranks:
                    mine = C10dTransport(group, self.device, self.backend, self._timeout_s)
        return mine

    def _require_like_histories(self) -> None:
        """Refuse what would hang: c10d names a group of a part by how many a rank is in."""
        made = torch.tensor(
            [len(dist.distributed_c10d._world.pg_names)], device=self.control_device
        )
        found = made.new_empty(self.world_size)
        self.all_gather(found, made, False).wait()
        if found.min() != found.max():
            raise CommUsageError(
                f"split: the ranks of this group are in {found.tolist()} groups each, and have to"
                " be in equally many",
                "make the parts of the whole world: world.split([…])",
            )

    @property
    def group(self) -> dist.ProcessGroup:
        """The process group, until it is closed."""
        if self._group is None:
            raise CommUsageError("the process group was closed")
        return self._group

    def close(self, *, failed: bool) -> None:
        # Whoever keeps the world must not keep the group: gloo's threads, still there when
        # the interpreter ends, abort the process.
        group, self._group = self._group, None
        if group is None or not self._owned or not dist.is_initialized():
            return
        if failed and self.backend == "nccl":
            group.abort()  # else it may wait for peers that wait for others
        dist.destroy_process_group(group)
