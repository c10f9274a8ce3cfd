"""What a rank holds beside activations: weights, gathered or not, gradients, optimizer state.

FSDP2 (torch/distributed/fsdp/_fully_shard): a unit is gathered into a buffer of the gather
stream, and copied from there into its parameters; the buffer lives until the next unit's copy.
In backward the next unit is gathered while one computes. Gradients are copied into a buffer of the
reduce stream, which lives until the next unit has reduced. DDP's gradients are views of buckets
that are never freed; those of a pass without all_reduce are not in them yet.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from distrun.estimate.layout import Training
from distrun.estimate.tape import Tape
from distrun.estimate.units import Units


class Holdings:
    """The weights and gradients of a rank, on its tape; a unit is named by its place in forward."""

    def __init__(self, training: Training, units: Units, tape: Tape) -> None:
        self._formats, self._layout = training.formats, training.layout
        self._units, self._tape = units, tape
        self._whole: dict[int, int] = {}
        """Unit -> its gathered weights."""
        self._waiting: dict[int, int] = {}
        """Unit -> its unsharded gradients that wait for the last micro-batch."""
        self.gradients: list[int] = []
        """What the optimizer updates with."""
        self._gather_buffer: int | None = None
        self._reduce_buffer: int | None = None

    @property
    def in_buckets(self) -> bool:
        """Whether gradients have buffers of their own that stay."""
        return self._formats.buffered or (
            self._layout.data * self._layout.cp > 1 and not self._layout.fully_sharded
        )

    def hold_states(self) -> None:
        """Take what exists before the step: weights, optimizer state, buckets."""
        formats, layout, units = self._formats, self._layout, self._units
        if self.in_buckets:
            reduced = units.total("count") - units.total("experts")
            self._tape.take("gradients", formats.gradients * reduced)
        if formats.doubles_gradients and formats.compiled and not layout.fully_sharded:
            self._tape.take("gradients", formats.gradients * units.total("count"))
        for unit in () if layout.offload else units.all:
            self._tape.take("parameters", formats.weights * unit.own)
            if layout.stage != 1:
                self._tape.take("optimizer", formats.optimizer * unit.own)
        if layout.stage == 1:
            most = largest_share(units.tensors, layout.shard)
            self._tape.take("optimizer", formats.optimizer * most)

    # --- weights ---

    def gather(self, index: int) -> None:
        """Make the weights of a unit whole, in forward."""
        if not self._layout.fully_sharded or index in self._whole:
            return
        unit, before = self._units.all[index], self._gather_buffer
        nbytes = self._formats.compute * unit.padded
        self._gather_buffer = self._tape.take("gathered", nbytes, "gather")
        if before is not None:
            self._tape.give(before)
        self._whole[index] = self._tape.take("gathered", self._formats.compute * unit.count)

    def gather_again(self, index: int, ahead: int | None) -> None:
        """Make the weights of a unit whole, in backward, and begin to gather the one ahead."""
        if not self._layout.fully_sharded or index in self._whole:
            return
        unit, held = self._units.all[index], self._gather_buffer
        if held is None:
            held = self._tape.take("gathered", self._formats.compute * unit.padded, "gather")
        self._whole[index] = self._tape.take("gathered", self._formats.compute * unit.count)
        self._tape.give(held)
        self._gather_buffer = None
        if ahead is not None and ahead not in self._whole:
            nbytes = self._formats.compute * self._units.all[ahead].padded
            self._gather_buffer = self._tape.take("gathered", nbytes, "gather")

    def drop_buffer(self) -> None:
        """Free the buffer of the last gather."""
        if self._gather_buffer is not None:
            self._tape.give(self._gather_buffer)
            self._gather_buffer = None

    def reshard(self, index: int) -> None:
        """Free the gathered weights of a unit."""
        if index in self._whole:
            self._tape.give(self._whole.pop(index))

    # --- gradients ---

    def grad_nbytes(self) -> int:
        """Return the bytes of an element of a gradient as backward makes it."""
        return self._formats.compute if self._layout.fully_sharded else self._formats.gradients

    def reduce(self, index: int, *, last: bool) -> None:
        """Make the gradients of a unit, and bring them where they belong.

        Args:
            index: The unit.
            last: Whether this is the last micro-batch, in which gradients are reduced.
        """
        if self._layout.fully_sharded:
            made = self._tape.take("gradients", self.grad_nbytes() * self._units.all[index].count)
            if last or self._layout.stage == 3:
                self.reshard(index)
            self._reduce_shards(index, made, last=last)
        else:
            self._add_up(index, last=last)

    def _reduce_shards(self, index: int, made: int, *, last: bool) -> None:
        unit, formats, tape = self._units.all[index], self._formats, self._tape
        if not last and not formats.syncs_always:
            if index not in self._waiting:
                self._waiting[index] = tape.take("gradients", formats.reduce * unit.count)
            tape.give(made)
            return
        if index in self._waiting:
            tape.give(made)
            made = self._waiting.pop(index)
        if self._reduce_buffer is not None:
            tape.give(self._reduce_buffer)
        self._reduce_buffer = tape.take("gathered", formats.reduce * unit.padded, "reduce")
        tape.give(made)
        shard = tape.take("gradients", formats.reduce * unit.own, "reduce")
        if formats.gradients != formats.reduce:
            cast = tape.take("gradients", formats.gradients * unit.own, "reduce")
            tape.give(shard)
            shard = cast
        if self._layout.offload or not last:  # gone to the host, or added to what is there
            tape.give(shard)
        else:
            self.gradients.append(shard)

    def _add_up(self, index: int, *, last: bool) -> None:
        """Keep the gradients of a unit: in buckets, or beside them until the last pass."""
        unit, formats = self._units.all[index], self._formats
        views = self.in_buckets and (formats.bucket_views or formats.buffered)
        count = unit.experts if views and (last or formats.buffered) else unit.count
        if count and index not in self._waiting:
            self._waiting[index] = self._tape.take("gradients", formats.gradients * count)
        if not last:
            return
        held = self._waiting.pop(index, None)
        if held is None:
            return
        if views and unit.experts == 0:  # copied into its bucket
            self._tape.give(held)
        else:
            self.gradients.append(held)

    def end_of_backward(self) -> None:
        """Free the buffer of the last reduction."""
        if self._reduce_buffer is not None:
            self._tape.give(self._reduce_buffer)
            self._reduce_buffer = None


def largest_share(tensors: Iterable[int], ranks: int) -> int:
    """Return the elements on the rank with most if whole tensors go to the emptiest rank.

    As ZeroRedundancyOptimizer does it: the largest first.
    """
    heap = [0] * ranks
    for count in sorted(tensors, reverse=True):
        heapq.heapreplace(heap, heap[0] + count)
    return max(heap)
