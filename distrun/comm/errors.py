"""What the comm layer raises on purpose.

    DistrunError
    ├── UsageError
    │   └── CommUsageError               a call that no rank could carry out: dtype, dim, rank, …
    │       ├── ClosedError              … on a group that this rank has closed
    │       └── ForkedError              … in a process that was forked from the rank
    ├── MachineError
    │   └── NoGpuError                   NCCL was asked for, and there is no GPU for this rank
    └── CommError                        the ranks, taken together, could not carry it out
        ├── JoinError                    they did not all come together in `init`
        │   └── PortBusyError            … because another program has MASTER_PORT
        ├── GroupDeadError               a peer was lost or timed out: the group is of no more use
        └── CollectiveMismatchError      they called different things (checked mode)
            ├── TwoThreadsError          … two threads of a rank called at once
            ├── RankLateError            … one did not call within the timeout
            └── RankLeftError            … one is gone

A traceback shows their hints.
"""

from __future__ import annotations

from distrun.errors import DistrunError, MachineError, ShowsItsHint, UsageError


class CommUsageError(ShowsItsHint, UsageError, ValueError):
    """A call that cannot work, whatever the other ranks do; nothing was sent."""


class ClosedError(CommUsageError):
    """The group was closed by this rank."""


class ForkedError(CommUsageError):
    """The group belongs to the process that this one was forked from."""


class NoGpuError(ShowsItsHint, MachineError):
    """NCCL was asked for, and there is no GPU for this rank."""


class CommError(ShowsItsHint, DistrunError, RuntimeError):
    """The ranks together could not carry out a call."""

    follows = False
    """It only tells that another rank was lost, which has a reason of its own."""


class JoinError(CommError):
    """The ranks did not all come together in `comm.init`."""


class PortBusyError(JoinError):
    """Another program listens where rank 0 should."""


class GroupDeadError(CommError):
    """A peer was lost, or did not answer in time: the group cannot be used any more."""

    follows = True


class CollectiveMismatchError(CommError):
    """The ranks of a group called different things; nothing was sent."""


class TwoThreadsError(CollectiveMismatchError):
    """Two threads of a rank called collectives of one group at once; the group is dead."""


class RankLateError(CollectiveMismatchError):
    """A rank did not call a collective within the timeout; the group is dead."""


class RankLeftError(CollectiveMismatchError):
    """A rank has closed the group or ended, and so will never call."""

    follows = True
