"""The kinds of failure of a run, and what is done after each: data that every room may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STOP, RETRY, SWAP, SHRINK, OBSERVE = "stop", "retry", "swap", "shrink", "observe"
ACTIONS = {
    STOP: "end the run",
    RETRY: "start the world again on the same nodes, --max-restarts times",
    SWAP: "put a spare node in the place of the suspect; without one: shrink, else retry",
    SHRINK: "go on with the other nodes, down to MIN of --nodes MIN:MAX; else retry",
    OBSERVE: "report it and go on",
}
"""Name -> what it does."""


@dataclass(frozen=True)
class Kind:
    """One kind of failure.

    Attributes:
        name: As `--on NAME=ACTION` has it.
        what: How it is recognised.
        default: What is done about it.
        actions: What may be done about it.
    """

    name: str
    what: str
    default: str
    actions: tuple[str, ...]


_RESTARTING = (STOP, RETRY, SWAP, SHRINK)
CODE, CRASH, DISK, HANG, PREEMPTED = "code", "crash", "disk", "hang", "preempted"
GPU, GPU_MEMORY, HOST_MEMORY = "gpu", "gpu-memory", "host-memory"
NODE, LINK, BAD_NODE = "node", "link", "bad-node"
KINDS = {
    kind.name: kind
    for kind in (
        Kind(CODE, "one error at one line on all ranks twice, or no step twice", STOP, _RESTARTING),
        Kind(CRASH, "a rank failed", RETRY, _RESTARTING),
        Kind(GPU, "a GPU failed: Xid, ECC, lost", SWAP, _RESTARTING),
        Kind(HOST_MEMORY, "the kernel killed a rank: out of memory", RETRY, _RESTARTING),
        Kind(GPU_MEMORY, "torch found no more GPU memory", STOP, _RESTARTING),
        Kind(NODE, "a node or its agent ended", SWAP, _RESTARTING),
        Kind(LINK, "a node was silent for 30 s", SWAP, _RESTARTING),
        Kind(HANG, "the ranks waited for a rank", RETRY, (*_RESTARTING, OBSERVE)),
        Kind(PREEMPTED, "a node was told to end", STOP, (STOP, SWAP, SHRINK)),
        Kind(DISK, "no space was left for a file of the script", STOP, _RESTARTING),
        Kind(BAD_NODE, "the same node failed first twice", SWAP, _RESTARTING),
    )
}
"""Name -> kind."""


def chosen(actions: Mapping[str, str]) -> dict[str, str]:
    """Return the action for every kind: the given ones, and the defaults."""
    return {name: actions.get(name, kind.default) for name, kind in KINDS.items()}
