"""What is known of the ranks of a job that may hang: records, calls, processes. Plain data.

A record is torch's flight recorder
(https://docs.pytorch.org/tutorials/unstable/flight_recorder_tutorial.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distrun.diagnose.places import Frame


@dataclass(frozen=True)
class Group:
    """A process group as one of its ranks has it."""

    name: str
    """Unique in a rank: `0`, or a hash of the ranks."""
    desc: str
    """What its maker calls it: `default_pg`, `mesh_dp`."""
    ranks: tuple[int, ...]
    """Global ranks in the order of the group; () if they are not known."""
    enqueued: int
    """Sequence number of the last collective that this rank has called; 0 for none."""
    completed: int
    """That of the last one which has ended here."""
    timeout_s: float = 0.0
    """torch's own limit for a collective of the group; 0 if it is not known."""


@dataclass(frozen=True)
class Collective:
    """One call of a collective, or of send or recv, in a rank's record."""

    group: str
    seq: int
    """Its number in the group; of point-to-point operations the number among those."""
    op: str
    """`all_reduce`, without the backend's name."""
    backend: str = ""
    """`nccl` or `gloo`; "" if it is not known."""
    input_sizes: tuple[tuple[int, ...], ...] = ()
    output_sizes: tuple[tuple[int, ...], ...] = ()
    input_dtypes: tuple[str, ...] = ()
    output_dtypes: tuple[str, ...] = ()
    state: str = "scheduled"
    """`scheduled`, `started` or `completed`; gloo knows only the first."""
    done: bool = False
    is_p2p: bool = False
    created_ns: int = 0
    """When it was called, by the wall clock of its machine."""
    completed_ns: int = 0
    """When its end was noticed; 0 if it was not, as in gloo always."""
    timeout_ms: int = 0
    """0 if it is not known."""
    frames: tuple[Frame, ...] = ()
    """The Python calls that led to it, the innermost first; gloo records none."""
    peer: int = -1
    """The rank that a send goes to, or that a recv is from; -1 if it is not known."""


@dataclass(frozen=True)
class Call:
    """The function of torch.distributed that a rank's main thread is in, with its arguments."""

    function: str
    group: str = ""
    """The group's name, if it is known."""
    arguments: Mapping[str, int | str] = field(default_factory=dict)
    """Those of `src`, `dst`, `op` and `tag` that it has; ranks are global ones."""


@dataclass(frozen=True)
class Handled:
    """An exception that a rank has raised and not got rid of."""

    type: str
    message: str
    file: str
    line: int


@dataclass(frozen=True)
class RasEntry:
    """What NCCL's RAS tells of a rank in one communicator of NCCL."""

    communicator: str
    """The same for all of its ranks."""
    size: int
    """How many ranks it has."""
    counts: Mapping[str, int]
    """How often the rank has called each of NCCL's functions; {} if RAS does not reach it."""
    is_missing: bool = False
    """RAS does not reach the rank."""
    has_failed: bool = False
    """An operation of the communicator has failed in the rank."""


@dataclass(frozen=True)
class Record:
    """What a rank has answered while its main thread may be stuck."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    """By name."""
    collectives: tuple[Collective, ...] = ()
    """The last ones, the oldest first; () if only the counts were asked for."""
    frames: tuple[Frame, ...] = ()
    """The calls of its main thread, the innermost first."""
    opcode: str = ""
    """The bytecode instruction at which its main thread was."""
    moves: bool = False
    """Its main thread was at another instruction, or in another call, some milliseconds later."""
    call: Call | None = None
    handled: Handled | None = None
    """The exception whose `except` or `finally` block its main thread is in."""
    ras: tuple[RasEntry, ...] = ()
    """What NCCL's RAS told of it at that time, for each communicator."""
    time_ns: int = 0
    """When it answered, by the wall clock of its machine."""


@dataclass(frozen=True)
class Process:
    """A rank's process and those that it has started, from /proc."""

    state: str = ""
    """A letter of proc(5); "" if it could not be read."""
    is_traced: bool = False
    cpu_s: float = 0.0
    """Of all its processes."""
    io_nbytes: int = 0
    """Read and written by all its processes: disk, pipes and sockets."""
    system_s: float = 0.0
    """CPU time in the kernel, of the rank's own process."""
    faults: int = 0
    """Page faults of the rank's own process."""


@dataclass(frozen=True)
class Witness:
    """All that is known of one rank at one time."""

    rank: int
    host: str
    record: Record | None = None
    """None: it has no process group, or its record cannot be asked for."""
    age_s: float = 0.0
    """For how long it has been asked without an answer, as a rank whose GIL is held; else 0."""
    stacks: str = ""
    """Its stacks, as faulthandler writes them."""
    process: Process | None = None
    """None: its node does not answer."""
    exit_code: int | None = None
    """None: it lives."""
    idle_s: float | None = None
    """For how long it has made no progress; None if nobody has watched it."""
    gave_up: bool = False
    """It has waited for its peers until torch's own timeout; its stacks are from then."""
    is_busy: bool = False
    """It used CPU time all the while, on the same lines of Python."""
