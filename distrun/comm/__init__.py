"""Process groups, collectives and checked mode.

    from distrun import comm

    with comm.init() as world:
        total = world.all_reduce(loss)
        whole = world.all_gather(part, dim=1)

It uses gloo on the CPU and NCCL on GPUs.
"""

from distrun.comm import functional
from distrun.comm.errors import (
    ClosedError,
    CollectiveMismatchError,
    CommError,
    CommUsageError,
    ForkedError,
    GroupDeadError,
    JoinError,
    NoGpuError,
    PortBusyError,
    RankLateError,
    RankLeftError,
    TwoThreadsError,
)
from distrun.comm.handle import Handle, UnwaitedHandleWarning
from distrun.comm.mesh import Mesh
from distrun.comm.setup import attach, init
from distrun.comm.world import World


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "ClosedError",
    "CollectiveMismatchError",
    "CommError",
    "CommUsageError",
    "ForkedError",
    "GroupDeadError",
    "Handle",
    "JoinError",
    "Mesh",
    "NoGpuError",
    "PortBusyError",
    "RankLateError",
    "RankLeftError",
    "TwoThreadsError",
    "UnwaitedHandleWarning",
    "World",
    "attach",
    "functional",
    "init",
]
