"""Rows of several tensors, of any dtypes, as one run of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

_ALIGNMENT = 16  # of complex128, the largest; a view of bytes as a dtype has to begin so
NATIVE = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int8, torch.uint8),
}
"""What gloo and NCCL carry by its own name; the rest travels as bytes."""


def wire(x: Tensor) -> Tensor:
    """Return a contiguous tensor as gloo and NCCL can carry it: a flat view of it."""
    flat = x.view(-1)
    return flat if x.dtype in NATIVE else _octets(flat)


def _octets(flat: Tensor) -> Tensor:
    """Return the bytes of a flat tensor, which if it has one element may have any stride."""
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def row_nelement(rows: Tensor) -> int:
    """Return how many elements of `wire(rows)` one row is: rows [L, ...]."""
    return prod(rows.shape[1:]) * (1 if rows.dtype in NATIVE else rows.dtype.itemsize)


class Packing:
    """The order and the place of several tensors' rows in a block of bytes.

    Args:
        dtypes: Of each tensor.
        row_shapes: [...] of each tensor's rows [L, ...].
    """

    def __init__(self, dtypes: Sequence[torch.dtype], row_shapes: Sequence[Sequence[int]]) -> None:
        self._dtypes = dtypes
        self._row_shapes = row_shapes
        # Large items first: then each dtype's bytes begin at a multiple of its size.
        self._order = sorted(range(len(dtypes)), key=lambda i: -dtypes[i].itemsize)

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Packing:
        """Return the packing for rows like these."""
        return cls([r.dtype for r in rows], [list(r.shape[1:]) for r in rows])

    def nbytes(self, lengths: Sequence[int]) -> int:
        """Return the size of a block with `lengths[i]` rows of tensor i."""
        total = sum(
            length * prod(shape) * dtype.itemsize
            for length, shape, dtype in zip(lengths, self._row_shapes, self._dtypes, strict=True)
        )
        return total + -total % _ALIGNMENT

    def pack(self, rows: Sequence[Tensor], nbytes: int) -> Tensor:
        """Return a block of `nbytes` with these rows: [nbytes] uint8."""
        parts = [_octets(rows[i].reshape(-1)) for i in self._order]
        rest = nbytes - sum(len(part) for part in parts)
        return torch.cat([*parts, parts[0].new_zeros(rest)])

    def unpack(self, block: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Return the rows in a block, views of it: [lengths[i], ...] each."""
        found: dict[int, Tensor] = {}
        begin = 0
        for i in self._order:
            shape, dtype = [lengths[i], *self._row_shapes[i]], self._dtypes[i]
            end = begin + prod(shape) * dtype.itemsize
            found[i] = block[begin:end].view(dtype).view(shape)
            begin = end
        return [found[i] for i in range(len(found))]

    def unpack_all(
        self, blocks: Tensor, nbytes: Sequence[int], lengths: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Return the rows of several blocks, joined tensor by tensor.

        Args:
            blocks: [sum of nbytes] uint8.
            nbytes: Of each block.
            lengths: Rows of each tensor in each block.
        """
        found = [
            self.unpack(block, each)
            for block, each in zip(blocks.split_with_sizes(list(nbytes)), lengths, strict=True)
        ]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]
