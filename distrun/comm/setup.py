"""`comm.init` and `comm.attach`: make the world."""

from __future__ import annotations

import atexit
import contextvars
import os
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from distrun import torch_private
from distrun.comm.c10d import C10dTransport
from distrun.comm.checked.checker import BoardChecker
from distrun.comm.checked.make import make_board
from distrun.comm.checked.watch import Watch
from distrun.comm.errors import CommUsageError, NoGpuError
from distrun.comm.forked import require_own_group
from distrun.comm.group import Checker
from distrun.comm.join import open_store, require_all
from distrun.comm.world import World
from distrun.env import COMM_CHECK, TorchrunEnv

WORLD_WAS_GIVEN: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "WORLD_WAS_GIVEN", default=False
)
"""Set if a rank was passed its world, as `distrun.testing` does."""
_BACKENDS = ("gloo", "nccl")
_LONGEST_S = 86400.0 * 365


class Settings(NamedTuple):
    """The arguments of `init`, with defaults filled in."""

    backend: str
    device: torch.device
    timeout_s: float
    check: bool


def init(
    backend: str | None = None, *, timeout_s: float = 300.0, check: bool | None = None
) -> World:
    """Join the ranks of the job, and return the world of all of them.

    Reads torchrun's variables; without a launcher the world has one rank and needs no MASTER_PORT.
    Also makes torch.distributed's default group, so DDP, FSDP and DTensor work. Use it as `with
    comm.init() as world:`, which closes it, after an exception too. It installs no signal handler,
    and leaves nothing behind when the process is killed.

    Uses `torch.distributed.init_process_group`
    (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.init_process_group).

    Args:
        backend: "nccl" or "gloo"; None: nccl if there is a GPU for every rank of this node,
            else gloo.
        timeout_s: How long to wait for the other ranks, now and in every collective.
        check: Compare every call before anything is sent; None: read DISTRUN_COMM_CHECK.

    Raises:
        CommUsageError: There is a world already, or an argument or variable is invalid.
        NoGpuError: NCCL was asked for, and there is no GPU for this rank.
        PortBusyError: Another program uses MASTER_PORT.
        JoinError: Not all ranks joined within `timeout_s`; the missing ranks are named.
    """
    env = _environment()
    settings = _settled(backend, timeout_s, check, env)
    require_own_group("comm.init")
    if WORLD_WAS_GIVEN.get() or dist.is_initialized():
        raise CommUsageError(
            "comm.init: this process has a world already"
            if not WORLD_WAS_GIVEN.get()
            else "comm.init: this rank was passed its world",
            "pass that world on; comm.attach() makes a world from an existing process group",
        )
    if settings.device.type == "cuda":
        torch.cuda.set_device(settings.device)
    store = open_store(env, timeout_s)
    return join(store, env, settings)


def attach(
    group: dist.ProcessGroup | None = None, *, timeout_s: float = 300.0, check: bool | None = None
) -> World:
    """Return a world on a process group that other code made and will destroy.

    Args:
        group: The group; None: the default group.
        timeout_s: How long a rank may be late in checked mode.
        check: As in `init`.

    Raises:
        CommUsageError: There is no such group.
    """
    if not dist.is_initialized():
        raise CommUsageError("comm.attach: there is no process group", "comm.init() makes one")
    require_own_group("comm.attach")
    group = group or dist.group.WORLD
    assert group is not None  # torch.distributed is initialized
    env = _environment()
    has_gpus = (
        any(d.type == "cuda" for d in torch_private.device_types(group))
        and torch.cuda.is_available()
    )
    nccl = "nccl" in dist.get_backend_config(group)
    device = torch.device("cuda", torch.cuda.current_device()) if has_gpus and nccl else _CPU
    settings = Settings("nccl" if nccl else "gloo", device, timeout_s, _wants_check(check))
    store = torch_private.default_store()
    transport = C10dTransport(group, device, settings.backend, timeout_s, owned=False)
    return World(transport, env.local_rank, "the world", _checkers(store, settings))


_CPU = torch.device("cpu")


def _environment() -> TorchrunEnv:
    try:
        env = TorchrunEnv.read()
    except ValueError as error:
        raise CommUsageError(
            f"comm.init: a variable of torchrun is not a number ({error})",
            "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and MASTER_PORT must be numbers",
        ) from None
    if not 0 <= env.rank < env.world_size:
        raise CommUsageError(
            f"comm.init: RANK={env.rank} is out of range for WORLD_SIZE={env.world_size}",
            f"from 0 to {env.world_size - 1}",
        )
    return env


def _settled(
    backend: str | None, timeout_s: float, check: bool | None, env: TorchrunEnv
) -> Settings:
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s < _LONGEST_S:
        raise CommUsageError(
            f"comm.init: timeout_s={timeout_s!r} is not a number of seconds from 0 to"
            f" {_LONGEST_S:.0f}"
        )
    if backend not in (None, *_BACKENDS):
        raise CommUsageError(
            f"comm.init: backend={backend!r} is not known to distrun", '"gloo" or "nccl"'
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if backend == "nccl" and not dist.is_nccl_available():
        raise NoGpuError(
            f"comm.init: NCCL was asked for, but torch {torch.__version__} was built without it",
            'backend="gloo", or a CUDA build of torch',
        )
    if backend == "nccl" and env.local_rank >= gpus:
        raise NoGpuError(
            f"comm.init: NCCL was asked for, but this node has {gpus} GPUs, and local rank"
            f" {env.local_rank} has none",
            'backend="gloo", or fewer ranks per node; CUDA_VISIBLE_DEVICES may hide GPUs',
        )
    enough = dist.is_nccl_available() and gpus >= max(env.local_world_size, env.local_rank + 1)
    chosen = backend or ("nccl" if enough else "gloo")
    device = torch.device("cuda", env.local_rank) if chosen == "nccl" else _CPU
    return Settings(chosen, device, timeout_s, _wants_check(check))


def _wants_check(check: bool | None) -> bool:
    if check is not None:
        return check
    return os.environ.get(COMM_CHECK, "").lower() not in ("", "0", "false", "no", "off")


def join(
    store: Store,
    env: TorchrunEnv,
    settings: Settings,
    generation: int = 0,
    members: Sequence[int] | None = None,
    join_timeout_s: float | None = None,
) -> World:
    """Join the ranks at a store, and return the world of all of them.

    Args:
        store: A store used by these ranks only.
        env: This rank's torchrun variables.
        settings: Complete.
        generation: How often the world was rebuilt in this store.
        members: Its ranks, as numbered in the first world; None: all.
        join_timeout_s: How long to wait for the others; None: as in a collective.
    """
    own = PrefixStore(f"world{generation}/{'-'.join(map(str, members or ()))}", store)
    require_all(own, env, join_timeout_s or settings.timeout_s)
    on_gpu = settings.backend == "nccl"
    dist.init_process_group(
        # with gloo too, so that numbers read by Python need not be copied from a GPU
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=own,
        rank=env.rank,
        world_size=env.world_size,
        timeout=timedelta(seconds=settings.timeout_s),
        device_id=settings.device if on_gpu else None,
    )
    group = dist.group.WORLD
    assert group is not None  # just made
    transport = C10dTransport(group, settings.device, settings.backend, settings.timeout_s)

    def again(ranks: Sequence[int], join_timeout_s: float | None) -> World:
        left = [members[rank] for rank in ranks] if members else list(ranks)
        smaller = env.renumbered(ranks)
        return join(store, smaller, settings, generation + 1, left, join_timeout_s)

    world = World(transport, env.local_rank, "the world", _checkers(own, settings), again)
    if not on_gpu:  # closing NCCL may wait for peers
        atexit.register(_close, weakref.ref(world))
    return world


def _close(world: weakref.ref[World]) -> None:
    """Close a world that was left open: gloo's threads abort a process that ends before them."""
    if (left_open := world()) is not None:
        left_open.close(failed=True, why="its process is ending")


def _checkers(store: Store, settings: Settings) -> Callable[[World], Checker | None]:
    """Return the function that makes the checker of a group; it makes none without checked mode."""
    if not settings.check:
        return lambda group: None
    watch = Watch()
    return lambda group: BoardChecker(
        make_board(group, store), group.name, settings.timeout_s, watch
    )
