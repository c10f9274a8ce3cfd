"""The plan of a launch: the object that `--dry-run` prints and `launch` executes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import distrun

SIGNALS_TO_HANDLE = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"


@dataclass(frozen=True)
class Setting:
    """One choice, its source and its purpose."""

    name: str
    value: str
    source: str
    """flag, config file, recipe header, environment, detected or default."""
    why: str = ""


@dataclass(frozen=True)
class Program:
    """What every rank runs."""

    script: str
    args: tuple[str, ...] = ()
    module: bool = False
    no_python: bool = False

    @property
    def name(self) -> str:
        """A short name for run directories: `ddp` for `recipes/ddp.py`."""
        last = self.script.rpartition("/")[2]
        return last.rpartition(".")[2] if self.module else last.removesuffix(".py")

    @property
    def own(self) -> str:
        """Its path below distrun's package: each node runs its own one. "" for a user's program."""
        package, found = Path(distrun.__file__).parent, Path(self.script)
        if self.module or self.no_python or not found.is_relative_to(package):
            return ""
        return str(found.relative_to(package))

    @property
    def path(self) -> str:
        """The script as an argument that cannot be parsed as an option."""
        return f"./{self.script}" if self.script.startswith("-") else self.script


@dataclass(frozen=True)
class NodePlan:
    """One node: its address, and what is added to its environment."""

    number: int
    """Its index in the first plan; its name and its logs keep it if other nodes are lost."""
    host: str
    """Name to show: `node0` for an emulated node."""
    address: str
    """IP address at which the other nodes reach it."""
    environ: Mapping[str, str]
    command: tuple[str, ...] = ()
    """What starts its agent, to be run here; empty: it is on this machine."""
    probe: tuple[str, ...] = ()
    """What starts a probe there, likewise."""


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that determines a launch; nothing is decided later."""

    run_id: str
    program: Program
    nodes: tuple[NodePlan, ...]
    min_nodes: int
    nproc_per_node: int
    master_port: int
    master_port_is_users: bool
    warm: bool
    max_restarts: int
    grace_s: float
    linger_s: float
    straggler_notice_s: float
    hang_timeout_s: float
    """0: nobody watches for hangs."""
    stops_on_hang: bool
    join_timeout_s: float
    time_limit_s: float | None
    local: bool
    """Whether all nodes are emulated on this machine."""
    log_max_nbytes: int
    workdir: str
    """The working directory on other machines."""
    secrets: tuple[str, ...]
    """Names of variables whose values are never printed or saved."""
    actions: Mapping[str, str]
    """What is done about each kind of failure; the names are those of `failures.KINDS`."""
    settings: tuple[Setting, ...]
    bootstrap: bool = False
    """Whether agents on other machines have to be sent distrun."""
    debug_rank: int | None = None
    """The rank that has the terminal."""
    notes: tuple[str, ...] = ()
    """Notes for the user about choices, one line each."""
    own_node: int | None = None
    """The one node that this run supervises and records, if the others do so themselves."""
    rdzv_id: str = ""
    """Name of the rendezvous, if it is not the name of the run: the same on all nodes."""
    spares: tuple[NodePlan, ...] = ()
    """Nodes that stand by: joined, without ranks."""
    max_nodes: int = 0
    """How many nodes it may have again after it had to go on with fewer."""
    regrow: bool = False
    """Take a node that has come back at the next checkpoint, not only at the next restart."""
    metrics_every_s: float = 10.0
    """How often each machine is sampled; 0 for never."""
    report: bool = True
    """Whether report.html is written at the end."""

    @property
    def supervised(self) -> tuple[NodePlan, ...]:
        """The nodes whose agents this run starts."""
        return self.nodes if self.own_node is None else (self.nodes[self.own_node],)

    @property
    def supervised_ranks(self) -> int:
        """Number of ranks on them."""
        return len(self.supervised) * self.nproc_per_node

    @property
    def has_one_clock(self) -> bool:
        """Whether the supervised nodes are on one machine, so that times can be compared."""
        return self.local or self.own_node is not None

    @property
    def survives(self) -> bool:
        """Whether it can go on after a failure."""
        return bool(self.max_restarts or self.spares or self.min_nodes < self.max_nodes)

    @property
    def nnodes(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.nnodes * self.nproc_per_node

    def torchrun_arguments(self, node_rank: int) -> list[str]:
        """Return the command line of one node, without the word `torchrun`."""
        program = self.program
        arguments = [
            f"--nnodes={self.nnodes}",
            f"--nproc-per-node={self.nproc_per_node}",
            f"--node-rank={node_rank}",
            f"--master-addr={self.nodes[0].address}",
            f"--master-port={self.master_port}",
            f"--local-addr={self.nodes[node_rank].address}",
            f"--rdzv-id={self.rdzv_id or self.run_id}",
            f"--rdzv-conf=timeout={max(1, round(self.join_timeout_s))}",
            "--max-restarts=0",
            f"--signals-to-handle={SIGNALS_TO_HANDLE}",
        ]
        if program.module:
            arguments.append("--module")
        if program.no_python:
            arguments.append("--no-python")
        script = program.script if program.no_python else _unmacroed(program.path)
        # Without `--` torchrun's parser reads the script's own `--run` as its `--run-path`.
        return [*arguments, "--", script, *map(_unmacroed, program.args)]

    def start_order(self, node_rank: int, number: int) -> dict[str, Any]:
        """Return what the agent of a node is told when its ranks may start."""
        samples = not self.local or number == self.nodes[0].number  # once a machine
        return {
            "arguments": self.torchrun_arguments(node_rank),
            "own_program": self.program.own,
            "max_restarts": self.max_restarts,
            "by_itself": self.own_node is not None,
            "metrics_every_s": self.metrics_every_s if samples else 0.0,
        }

    def next_attempt(self, attempt: int, nodes: Sequence[NodePlan]) -> LaunchPlan:
        """Return the plan of the next attempt: another id, maybe other nodes.

        Its port is one that the head's agent finds free, unless the user names one.
        """
        base = self.run_id.partition(".")[0]
        return replace(self, run_id=f"{base}.{attempt}", nodes=tuple(nodes))

    def with_terminal(self, rank: int) -> LaunchPlan:
        """Return the plan for debugging one rank on the terminal: time limits are off."""
        note = f"rank {rank} has the terminal: Ctrl-C goes to it only, Ctrl-\\ stops the run"
        notes = (*self.notes, f"{note}; the output of other ranks is in their logs")
        if self.time_limit_s:
            notes = (*notes, f"the time limit of {self.time_limit_s:g} s is off")
        return replace(
            self,
            debug_rank=rank,
            straggler_notice_s=0.0,
            hang_timeout_s=0.0,
            time_limit_s=None,
            notes=notes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LaunchPlan:
        """Return the plan from `to_json`'s value."""
        program = data["program"]
        return cls(
            **{
                **data,
                "program": Program(**{**program, "args": tuple(program["args"])}),
                "nodes": _nodes(data["nodes"]),
                "spares": _nodes(data["spares"]),
                "secrets": tuple(data["secrets"]),
                "settings": tuple(Setting(**setting) for setting in data["settings"]),
                "notes": tuple(data["notes"]),
            }
        )


def _nodes(data: Sequence[Mapping[str, Any]]) -> tuple[NodePlan, ...]:
    lists = ("command", "probe")
    return tuple(NodePlan(**{**node, **{n: tuple(node[n]) for n in lists}}) for node in data)


def _unmacroed(word: str) -> str:
    """Escape `word` against torchrun's macros (`${local_rank}`): each dollar twice."""
    return word.replace("$", "$$")
