"""Packs rows of several tensors, of any dtypes, into one block of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

_ALIGNMENT = 16  # item size of complex128, the largest; a view of bytes as a dtype must be aligned
NATIVE = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int8, torch.uint8),
}
"""The dtypes that gloo and NCCL send as such; others are sent as bytes."""


def wire(x: Tensor) -> Tensor:
    """Return a flat view of a contiguous tensor in a dtype that gloo and NCCL can send."""
    flat = x.view(-1)
    return flat if x.dtype in NATIVE else _octets(flat)


def _octets(flat: Tensor) -> Tensor:
    """Return the bytes of a flat tensor; with one element it may have any stride."""
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)


def row_nelement(rows: Tensor) -> int:
    """Return the number of elements of one row in `wire(rows)`: rows [L, ...]."""
    return prod(rows.shape[1:]) * (1 if rows.dtype in NATIVE else rows.dtype.itemsize)


class Packing:
    """The order and the offsets of several tensors' rows in a block of bytes.

    Args:
        dtypes: Of each tensor.
        row_shapes: [...] of each tensor's rows [L, ...].
    """

    def __init__(self, dtypes: Sequence[torch.dtype], row_shapes: Sequence[Sequence[int]]) -> None:
        self._dtypes = dtypes
        self._row_shapes = row_shapes
        # Large items first, so that each dtype's bytes are aligned to its size.
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
        """Return the rows in a block, as views: [lengths[i], ...] each."""
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
        """Return the rows of several blocks, concatenated tensor by tensor.

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
