"""The exceptions of the comm layer.

    DistrunError
    ├── UsageError
    │   └── CommUsageError               a call that no rank could complete: dtype, dim, rank, …
    │       ├── ClosedError              … on a group that this rank has closed
    │       └── ForkedError              … in a process that was forked from the rank
    ├── MachineError
    │   └── NoGpuError                   NCCL was asked for, and there is no GPU for this rank
    └── CommError                        the ranks together could not complete a call
        ├── JoinError                    not all ranks joined in `init`
        │   └── PortBusyError            … because another program uses MASTER_PORT
        ├── GroupDeadError               a peer was lost or timed out: the group is unusable
        └── CollectiveMismatchError      the ranks made different calls (checked mode)
            ├── TwoThreadsError          … two threads of a rank called at once
            ├── RankLateError            … one did not call within the timeout
            └── RankLeftError            … one has left or ended

Tracebacks show the hints.
"""

from __future__ import annotations

from distrun.errors import DistrunError, MachineError, ShowsItsHint, UsageError


class CommUsageError(ShowsItsHint, UsageError, ValueError):
    """A call that is wrong whatever the other ranks do; nothing was sent."""


class ClosedError(CommUsageError):
    """The group was closed by this rank."""


class ForkedError(CommUsageError):
    """The group belongs to the process that this one was forked from."""


class NoGpuError(ShowsItsHint, MachineError):
    """NCCL was asked for, and there is no GPU for this rank."""


class CommError(ShowsItsHint, DistrunError, RuntimeError):
    """The ranks together could not complete a call."""

    follows = False
    """The error only reports that another rank was lost; that rank's error is the cause."""


class JoinError(CommError):
    """Not all ranks joined in `comm.init`."""


class PortBusyError(JoinError):
    """Another program listens on the port of rank 0's store."""


class GroupDeadError(CommError):
    """A peer was lost or did not answer in time; the group is unusable."""

    follows = True


class CollectiveMismatchError(CommError):
    """The ranks of a group made different calls; nothing was sent."""


class TwoThreadsError(CollectiveMismatchError):
    """Two threads of a rank called collectives of one group at once; the group is dead."""


class RankLateError(CollectiveMismatchError):
    """A rank did not call a collective within the timeout; the group is dead."""


class RankLeftError(CollectiveMismatchError):
    """A rank has closed the group or ended, so it will never call."""

    follows = True
