"""A grid of the world's ranks with named axes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distrun.comm.errors import CommUsageError
from distrun.comm.group import Group
from distrun.errors import did_you_mean

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

G = TypeVar("G", bound=Group)


class Mesh(Generic[G]):
    """The ranks of the world as a grid: `mesh["tp"]` is this rank's group along an axis.

    Args:
        sizes: Axis -> its length, the slowest first, without -1.
        groups: Axis -> this rank's group along it.
        device_mesh: Torch's DeviceMesh, for `fully_shard`, `parallelize_module` and others; None if
            there are no process groups.
    """

    def __init__(
        self, sizes: Mapping[str, int], groups: Mapping[str, G], device_mesh: DeviceMesh | None
    ) -> None:
        self.sizes = dict(sizes)
        """Axis -> its length."""
        self._groups = dict(groups)
        self._device_mesh = device_mesh

    def __getitem__(self, axis: str) -> G:
        try:
            return self._groups[axis]
        except KeyError:
            raise CommUsageError(
                f"the mesh has no axis {axis!r}", did_you_mean(str(axis), self.sizes)
            ) from None

    @property
    def device_mesh(self) -> DeviceMesh:
        """Torch's DeviceMesh with these axes and groups.

        Raises:
            CommUsageError: The ranks are threads, which have no process groups.
        """
        if self._device_mesh is None:
            raise CommUsageError(
                "ranks that are threads have no DeviceMesh, which needs process groups",
                'backend="gloo"',
            )
        return self._device_mesh

    @property
    def coordinate(self) -> dict[str, int]:
        """Axis -> this rank's index along it."""
        return {axis: group.rank for axis, group in self._groups.items()}

    def __repr__(self) -> str:
        return "Mesh(" + ", ".join(f"{axis}={size}" for axis, size in self.sizes.items()) + ")"


def complete(sizes: Mapping[str, int], world_size: int) -> dict[str, int]:
    """Return the axes with a length of -1 replaced.

    Raises:
        CommUsageError: The product of the lengths is not the world size.
    """
    if not isinstance(sizes, Mapping):
        raise CommUsageError(f"a mesh needs named axes, not {sizes!r:.60}", '{"dp": 2, "tp": 4}')
    lengths = dict(sizes)
    for axis, length in lengths.items():
        if not isinstance(length, int | float):
            raise CommUsageError(f"axis {axis} of a mesh has the length {length!r:.60}", "an int")
    open_axes = [axis for axis, length in lengths.items() if length == -1]
    known = prod(length for length in lengths.values() if length != -1)
    if len(open_axes) == 1 and known > 0 and world_size % known == 0:
        lengths[open_axes[0]] = world_size // known
    whole: Any = all(isinstance(n, int) and n >= 1 for n in lengths.values())
    if not lengths or not whole or prod(lengths.values()) != world_size:
        product = " x ".join(f"{axis}={length}" for axis, length in sizes.items()) or "no axes"
        raise CommUsageError(
            f"a mesh of {product} does not cover {world_size} rank{'s' * (world_size != 1)}",
            "the product of the lengths must be the world size; one length may be -1",
        )
    return lengths


def lines_along(axis: int, lengths: list[int]) -> list[list[int]]:
    """Return the groups of ranks along one axis of a row-major grid."""
    stride = prod(lengths[axis + 1 :])
    starts = [rank for rank in range(prod(lengths)) if rank // stride % lengths[axis] == 0]
    return [[start + stride * i for i in range(lengths[axis])] for start in starts]
