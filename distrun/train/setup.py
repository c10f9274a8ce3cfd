"""Joins the process group, and leaves it after training or an error."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed.nn  # before any process group: its default arguments would keep one
from torch.distributed.device_mesh import DeviceMesh

from distrun import comm, torch_private
from distrun.dcp.saver import GROUP
from distrun.env import TorchrunEnv
from distrun.train.config import TrainConfig

START_TIMEOUT_S = 300.0
"""For the first steps, in which ranks may be late: imports, a cold file system, a compile."""
STEP_TIMEOUT_S = 120.0
"""When all ranks train, a rank that is this late is lost."""


@dataclass(frozen=True)
class Place:
    """The rank and the device of this process."""

    env: TorchrunEnv
    world: comm.World
    """All ranks."""

    @property
    def device(self) -> torch.device:
        """This rank's own GPU, or the CPU."""
        return self.world.device

    @property
    def rank(self) -> int:
        """The rank in the world."""
        return self.env.rank

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.env.world_size

    def mesh(self, axes: dict[str, int]) -> DeviceMesh:
        """Make a mesh over all ranks; a collective call. `axes` is what `mesh.sizes` returned."""
        return self.world.mesh(axes).device_mesh

    def say(self, line: str) -> None:
        """Print a line on rank 0."""
        if self.rank == 0:
            print(line, flush=True)


@contextlib.contextmanager
def start(config: TrainConfig, joined: bool = False) -> Iterator[Place]:
    """Join the other ranks, seed, and leave at exit; after an error it does not wait for peers.

    It uses NCCL if this node has a GPU for every rank, else gloo. One rank needs no launcher.

    Args:
        config: The settings.
        joined: The recipe has made the process group itself, and will destroy it.
    """
    env = TorchrunEnv.read()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if "OMP_NUM_THREADS" not in os.environ:  # no launcher has divided the cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // env.local_world_size))
    make_world = comm.attach if joined else comm.init
    with make_world(timeout_s=START_TIMEOUT_S) as world:
        random.seed(config.seed)  # equally on each rank, on every device
        np.random.seed(config.seed % 2**32)
        torch.manual_seed(config.seed)
        place = Place(env, world)
        place.say(f"world size {env.world_size}: {world.backend} on {world.device.type}")
        yield place


def shorten_timeout() -> None:
    """Set the timeout of every group to STEP_TIMEOUT_S: a rank that is later is lost.

    torch has no public setter yet.
    """
    for group in torch_private.groups():
        if group.group_desc != GROUP:
            torch_private.set_timeout(group, STEP_TIMEOUT_S)
