"""`World`: a group of ranks with all collectives; the whole world, or a part of it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from types import TracebackType

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from distrun import torch_private
from distrun.comm.c10d import C10dTransport
from distrun.comm.errors import ClosedError, CommUsageError, ForkedError
from distrun.comm.forked import refuse_in_children
from distrun.comm.group import Checker
from distrun.comm.mesh import Mesh, complete, lines_along
from distrun.comm.reducing import Reducing
from distrun.comm.scattering import Scattering
from distrun.comm.sending import Sending
from distrun.comm.site import call_site
from distrun.comm.transport import Transport


class World(Reducing, Scattering, Sending):
    """A group of ranks. `comm.init` makes the whole world; `split` and `mesh` make parts of it.

    Args:
        transport: Carries its messages.
        local_rank: This rank's number on its node.
        name: For messages.
        make_checker: Makes the checker of a group that has none yet; every rank of the group calls
            it.
        make_again: Makes the whole world again, for `rebuild`; None for a part.
    """

    def __init__(
        self,
        transport: Transport,
        local_rank: int,
        name: str,
        make_checker: Callable[[World], Checker | None],
        make_again: Callable[[Sequence[int], float | None], World] | None = None,
    ) -> None:
        super().__init__(transport, local_rank, None, name)
        self._make_checker = make_checker
        self._make_again = make_again
        self._rebuilding = False
        self._pid = os.getpid()
        self._parts: list[World] = []
        self._device_meshes: list[DeviceMesh] = []
        refuse_in_children(self)
        self._checker = make_checker(self) if self.world_size > 1 else None

    @property
    def group(self) -> dist.ProcessGroup:
        """The c10d process group, for torch's own functions and for DDP.

        Raises:
            CommUsageError: The ranks are threads, which have none.
        """
        if isinstance(self._unfit, ClosedError | ForkedError):
            raise type(self._unfit)(self._unfit.message, self._unfit.hint)
        if not isinstance(self.transport.wrapped, C10dTransport):
            raise CommUsageError(
                f"ranks on {self.backend} have no c10d process group", 'backend="gloo"'
            )
        return self.transport.wrapped.group

    def split(self, by: int | Sequence[Sequence[int]], *, name: str = "") -> World | None:
        """Split the group into parts; every rank of the group must call this.

        Args:
            by: Ranks with the same number form a part, as in MPI_Comm_split. Or the parts as lists
                of ranks, the same on all ranks. The ranks of a part are in order.
            name: For messages; by default made from the ranks.

        Returns:
            This rank's part; None if it is in none of the lists.

        Raises:
            CommUsageError: A list names a rank twice, or a rank that does not exist.
        """
        if isinstance(by, int | Integral):
            if abs(int(by)) >= 2**63:
                raise CommUsageError(f"split: by={by} is not a number of 64 bits")
            self._begin("split", ())
            colours = [colour for (colour,) in self._everyones([int(by)])]
            parts = [
                [r for r, c in enumerate(colours) if c == colour] for colour in sorted(set(colours))
            ]
        else:
            parts = self._stated_parts(by)
            self._begin("split", (), by=parts)
        return self._part(parts, name)

    def _stated_parts(self, by: Sequence[Sequence[int]]) -> list[list[int]]:
        try:
            parts = [
                sorted(self._require_rank("split", "a rank of a part", rank) for rank in part)
                for part in by
            ]
        except TypeError:
            raise CommUsageError(
                f"split: by={by!r} is neither a number nor lists of ranks"
            ) from None
        named = [rank for part in parts for rank in part]
        if len(set(named)) != len(named) or not all(parts):
            raise CommUsageError(f"split: the parts {parts} name a rank twice, or one is empty")
        return parts

    def _part(self, parts: Sequence[Sequence[int]], name: str) -> World | None:
        transport = self.transport.subgroup(parts, name)
        if transport is None:
            return None
        (ranks,) = (part for part in parts if self.rank in part)
        name = name or f"the group of ranks {', '.join(map(str, ranks))}"
        part = World(transport, self.local_rank, name, self._make_checker)
        self._parts.append(part)
        return part

    def mesh(self, sizes: Mapping[str, int]) -> Mesh[World]:
        """Arrange the ranks in a grid with named axes; every rank must call this.

        Uses `torch.distributed.device_mesh.init_device_mesh`
        (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.device_mesh.init_device_mesh).

        Args:
            sizes: Axis -> its length, the slowest first: ranks along the last axis are consecutive.
                One length may be -1.

        Returns:
            `mesh["tp"]` is this rank's group along an axis, `mesh.device_mesh` torch's object.

        Raises:
            CommUsageError: The product of the lengths is not the world size.
        """
        lengths = complete(sizes, self.world_size)
        self._begin("mesh", (), sizes=lengths)
        axes = list(lengths)
        groups: dict[str, World] = {}
        for i, axis in enumerate(axes):
            part = self._part(lines_along(i, list(lengths.values())), axis)
            assert part is not None  # every rank is in one group along each axis
            groups[axis] = part
        return Mesh(lengths, groups, self._device_mesh(groups, lengths))

    def _device_mesh(
        self, groups: Mapping[str, World], lengths: Mapping[str, int]
    ) -> DeviceMesh | None:
        if not isinstance(self.transport.wrapped, C10dTransport):
            return None
        everyone = dist.get_process_group_ranks(self.group)
        grid = torch.tensor(everyone, dtype=torch.int).view(tuple(lengths.values()))
        parts = [groups[axis].group for axis in lengths]
        made = DeviceMesh.from_group(
            parts if len(parts) > 1 else parts[0],
            self.device.type,
            mesh=grid,
            mesh_dim_names=tuple(lengths),
        )
        self._device_meshes.append(made)
        return made

    def rebuild(
        self, ranks: Sequence[int] | None = None, *, timeout_s: float | None = None
    ) -> World:
        """Make the whole world again after a timeout or the loss of a rank.

        Every rank of the new world must call this; the old world and its parts are closed. It needs
        the store, which rank 0 (or the launcher) hosts.

        Args:
            ranks: The ranks of this world that still run, the same list on all of them; they are
                renumbered in order. None: all ranks.
            timeout_s: How long to wait for them; None: as long as `init` did.

        Returns:
            The new world.

        Raises:
            CommUsageError: This is a part of a world, or it was closed or rebuilt.
            JoinError: Not all of them joined within the timeout.
        """
        if self._make_again is None:
            raise CommUsageError(
                f"rebuild: {self.name} was not made by comm.init, or was rebuilt already",
                "call it on the current world",
            )
        if isinstance(self._unfit, ForkedError):
            raise self._unfit
        if isinstance(self._unfit, ClosedError) and not self._rebuilding:
            raise self._unfit
        chosen = sorted(set(range(self.world_size) if ranks is None else ranks))
        for rank in chosen:
            self._require_rank("rebuild", "a rank", rank)
        if self.rank not in chosen:
            raise CommUsageError(f"rebuild: this is rank {self.rank}, the ranks are {chosen}")
        self._rebuilding = True  # if not all join, it can be called again
        self.close(failed=True, why="it is rebuilding the world")
        world = self._make_again(chosen, timeout_s)
        self._make_again = None
        return world

    def close(self, *, failed: bool = False, why: str = "") -> None:
        """Leave the group and its parts. Closing twice is not an error.

        Args:
            failed: This rank failed: do not wait for other ranks.
            why: Shown in checked mode to ranks that still wait for this one; by default the line
                that calls this.
        """
        if isinstance(self._unfit, ClosedError) or os.getpid() != self._pid:
            return  # a forked child that leaves the `with` must not close its parent's group
        failed = failed or self._unfit is not None
        for part in self._parts:
            part.close(failed=failed, why=why)
        for mesh in self._device_meshes:  # it would keep the groups and gloo's threads alive
            torch_private.forget_groups(mesh)
        if self._checker is not None:
            how = why or f"it was closed at {call_site()}"
            self._checker.leave(how, dead=self._unfit is not None)
        self._unfit = ClosedError(
            f"{self.name} was closed at {call_site()}",
            "make the call before the end of `with comm.init()`",
        )
        self.transport.close(failed=failed)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        why = "" if error is None else f"it raised {type(error).__name__}: {error}"
        self.close(failed=error is not None, why=why.partition("\n")[0])

    def __repr__(self) -> str:
        return (
            f"<{self.name}: rank {self.rank} of {self.world_size}, {self.backend} on {self.device}>"
        )


torch_private.keep_out_of_graphs(
    *(
        method
        for name, method in inspect.getmembers(World, inspect.isfunction)
        if not name.startswith("_")
    )
)
