"""broadcast, send, recv and barrier."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from distrun.comm.errors import CommUsageError
from distrun.comm.group import Group
from distrun.comm.handle import Handle
from distrun.comm.ops import Encoding
from distrun.comm.packing import Packing, wire
from distrun.comm.staging import decoded, dense, require_like, require_tensor, targets_of
from distrun.comm.tree import flatten

Tree = TypeVar("Tree")
_AS_IT_IS = Encoding("broadcast")


class Sending(Group):
    """Broadcast, point-to-point messages and the barrier. Any dtype and strides."""

    @overload
    def broadcast(self, x: Tree, src: int = ..., *, out: Tree | None = ...) -> Tree: ...
    @overload
    def broadcast(
        self, x: Tree, src: int = ..., *, out: Tree | None = ..., async_op: bool
    ) -> Handle[Tree]: ...
    def broadcast(self, x: Any, src: int = 0, *, out: Any = None, async_op: bool = False) -> Any:
        """Return x of src on every rank.

        Uses `torch.distributed.broadcast`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.broadcast).

        Args:
            x: [...] on each rank, with the same shape and dtype; values are read on src only. Or a
                dict, list or tuple of such tensors, which are sent as one message.
            src: The rank whose x is used.
            out: Receives the result, [...] as x; `out=x` works in place. None: a new tensor.
            async_op: Return a handle at once.

        Returns:
            [...] as x.

        Raises:
            CommUsageError: There is no rank src, or `out` does not fit.
        """
        src = self._require_rank("broadcast", "src", src)
        leaves, structure = flatten(x)
        targets = targets_of("broadcast", leaves, structure, x, out)
        self._begin("broadcast", leaves, src=src, tree=structure)
        if not leaves:
            return self._carry("broadcast", list, lambda: x, async_op)
        if len(leaves) == 1:
            buffer = self._buffer(leaves[0], targets[0], src)
            return self._carry(
                "broadcast",
                lambda: [self.transport.broadcast(wire(buffer), src, async_op)],
                lambda: structure.unflatten([decoded(buffer, _AS_IT_IS, targets[0])]),
                async_op,
            )
        rows = [dense(leaf).unsqueeze(0) for leaf in leaves]  # each leaf is one row: [1, ...]
        packing, ones = Packing.of(rows), [1] * len(rows)
        nbytes = packing.nbytes(ones)
        block = (
            packing.pack(rows, nbytes)
            if self.rank == src
            else rows[0].new_empty(nbytes, dtype=torch.uint8)
        )

        def finish() -> Any:
            found = [row[0] for row in packing.unpack(block, ones)]
            return structure.unflatten(
                [decoded(f, _AS_IT_IS, t) for f, t in zip(found, targets, strict=True)]
            )

        return self._carry(
            "broadcast",
            lambda: [self.transport.broadcast(block, src, async_op)],
            finish,
            async_op,
        )

    def _buffer(self, x: Tensor, out: Tensor | None, src: int) -> Tensor:
        """Return a contiguous buffer for the result; on src it holds the values of x."""
        plain = dense(x)
        if out is x:
            return plain
        return plain.clone() if self.rank == src else torch.empty_like(plain)

    @overload
    def send(self, x: Tensor, dst: int, *, tag: int = ...) -> None: ...
    @overload
    def send(self, x: Tensor, dst: int, *, tag: int = ..., async_op: bool) -> Handle[None]: ...
    def send(self, x: Tensor, dst: int, *, tag: int = 0, async_op: bool = False) -> Any:
        """Send x to one rank, which must call `recv`.

        Uses `torch.distributed.send`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.send). Not compared
        in checked mode, because the other ranks make no call.

        Args:
            x: [...]
            dst: The rank to send to; not this rank.
            tag: Distinguishes messages between the same two ranks; gloo only.
            async_op: Return a handle at once; x must not change before wait() has returned.

        Raises:
            CommUsageError: There is no rank dst, or it is this one.
        """
        dst = self._require_peer("send", "dst", dst)
        require_tensor("send", x)
        self._require_fit("send", (x,))
        sent = wire(dense(x))
        return self._carry(
            "send", lambda: [self.transport.send(sent, dst, tag)], lambda: None, async_op
        )

    @overload
    def recv(
        self, like: Tensor, src: int, *, out: Tensor | None = ..., tag: int = ...
    ) -> Tensor: ...
    @overload
    def recv(
        self,
        like: Tensor,
        src: int,
        *,
        out: Tensor | None = ...,
        tag: int = ...,
        async_op: bool,
    ) -> Handle[Tensor]: ...
    def recv(
        self,
        like: Tensor,
        src: int,
        *,
        out: Tensor | None = None,
        tag: int = 0,
        async_op: bool = False,
    ) -> Any:
        """Return the tensor that another rank sends to this one.

        Uses `torch.distributed.recv`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.recv).

        Args:
            like: [...], with the shape and dtype of the sent tensor; its values are ignored.
            src: The rank to receive from; not this rank.
            out: Receives the result, [...] as like; `out=like` works in place. None: a new tensor.
            tag: As passed to `send`.
            async_op: Return a handle at once.

        Returns:
            [...] as like.

        Raises:
            CommUsageError: There is no rank src, or it is this one, or `out` does not fit.
        """
        src = self._require_peer("recv", "src", src)
        require_tensor("recv", like)
        if out is not None:
            require_like("recv", out, like)
        self._require_fit("recv", (like,))
        buffer = self._buffer(like, out, src)
        return self._carry(
            "recv",
            lambda: [self.transport.recv(wire(buffer), src, tag)],
            lambda: decoded(buffer, _AS_IT_IS, out),
            async_op,
        )

    def _require_peer(self, call: str, what: str, rank: int) -> int:
        rank = self._require_rank(call, what, rank)
        if rank == self.rank:
            raise CommUsageError(f"{call}: {what}={rank} is this rank itself", "use x.clone()")
        return rank

    @overload
    def barrier(self) -> None: ...
    @overload
    def barrier(self, *, async_op: bool) -> Handle[None]: ...
    def barrier(self, *, async_op: bool = False) -> Any:
        """Wait until every rank has called barrier.

        Uses `torch.distributed.barrier`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.barrier).

        Args:
            async_op: Return a handle at once.
        """
        self._begin("barrier", ())
        return self._carry(
            "barrier", lambda: [self.transport.barrier(async_op)], lambda: None, async_op
        )
