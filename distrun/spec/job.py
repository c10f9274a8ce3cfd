"""The job: what to launch and how. `Settings` may be in a config file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    StrictBool,
    ValidationInfo,
    field_validator,
)

from distrun.spec.base import Frozen, Refused
from distrun.spec.check import Check
from distrun.spec.fields import (
    Actions,
    Gpus,
    Grace,
    Hosts,
    NodeRange,
    Nodes,
    Nproc,
    PositiveSeconds,
    is_variable,
    without_secret,
)
from distrun.spec.fields import Strategy as StrategyName
from distrun.spec.kubernetes import Kubernetes
from distrun.spec.kubernetes_values import Image
from distrun.spec.slurm import Slurm


class Settings(Frozen):
    """The table `[tool.distrun]` of a config file; every key is a flag of `distrun launch`."""

    nodes: Nodes = NodeRange(1, 1)
    """Number of nodes, or MIN:MAX for as many as join in time."""
    nproc_per_node: Nproc = "auto"
    """Ranks on each node: a number, gpu, cpu, or auto."""
    strategy: StrategyName | None = None
    """Parallel strategy; the recipe reads it as DISTRUN_STRATEGY."""
    gpus: Gpus | None = None
    """GPUs to use: their numbers, or free:COUNT for unused ones."""
    max_restarts: NonNegativeInt = 0
    """How often a crashed world is started again."""
    spare: NonNegativeInt = 0
    """Nodes that stand by, beside `nodes`, to take the place of one that fails."""
    regrow: StrictBool = False
    """Take a node that has come back at the next checkpoint, not only at the next restart."""
    on_failure: Actions = Field(default_factory=dict)
    """What to do about a kind of failure: stop, retry, swap, shrink or observe."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables to add to every rank's environment."""
    env_file: Path | None = None
    """File of KEY=VALUE lines to add; its values are kept secret."""
    runs_dir: Path = Path("runs")
    """Directory that records the runs."""
    hosts: Hosts = ()
    """Machines that ssh reaches, a node each: for example a,user@b:2222,n[01-04], or a list."""
    hostfile: Path | None = None
    """File that names them, a line each; relative to the config file that names it."""
    on: str | None = None
    """local, ssh, slurm, kubernetes or compose; by default what fits the settings."""
    image: Image | None = None
    """The image that the containers run."""
    python: str | None = None
    """The interpreter on other machines; by default this one's path, else python3."""
    workdir: Path | None = None
    """The working directory on other machines; by default the path of this one's."""
    bootstrap: StrictBool = False
    """Send distrun to the other machines for the time of the run; torch has to be there."""
    sync: StrictBool = False
    """Send the project to the other machines before the start."""
    interface: str | None = None
    """The network interface of all nodes; by default that of the way to the first node."""
    master_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the rendezvous on node 0; a free one is picked by default."""
    time_limit: PositiveSeconds | None = None
    """Stop the run after this time (exit code 124)."""
    grace: Grace = 30.0
    """Time that ranks have to end by themselves when the run is stopped."""
    linger: Grace | None = None
    """Time that processes left by the ranks have to finish after a clean end [grace]."""
    join_timeout: PositiveSeconds = 300.0
    """Time that nodes have to join, and their ranks to start (exit code 4)."""
    straggler_notice: Grace = 60.0
    """Report where ranks are that still run this long after others have ended; 0 for never."""
    hang_timeout: Grace = 300.0
    """A job whose ranks wait for a rank this long without progress hangs; 0 for no watch."""
    on_hang: Literal["stop", "observe"] = "stop"
    """Stop a job that hangs (exit code 124), or report it and go on."""
    start_method: Literal["forkserver", "spawn"] = "forkserver"
    """Fork ranks from one import of torch, or start each as a new process."""
    log_max_mib: NonNegativeInt = 0
    """Rotate a rank's log when it reaches this size; 0 keeps one file."""
    metrics_every: Grace = 10.0
    """Sample GPUs, CPU, memory, disk and network of each node so often; 0 for never."""
    report: StrictBool = True
    """Write report.html into the run directory at the end."""
    track: Literal["tensorboard", "wandb", "mlflow", "trackio"] | None = None
    """Write what `distrun.train.metrics` gets to this tracker too."""
    check: Check = True
    """Check the machine before the start; a table holds `ignore` and limits of the rules."""
    strict: StrictBool = False
    """Refuse the start on warnings of the check too."""
    slurm: Slurm = Slurm()
    """What to ask Slurm for when `on` is slurm and there is no job around."""
    kubernetes: Kubernetes = Kubernetes()
    """The job of Kubernetes when `on` is kubernetes."""

    @property
    def hosts_flag(self) -> str:
        """The flag that names the hosts, for messages."""
        return "--hosts" if self.hostfile is None else "--hostfile"

    @field_validator("env")
    @classmethod
    def _names_are_names(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not is_variable(name) or "\0" in value:
                raise ValueError(f"holds {without_secret(name)!r}, which cannot be a variable")
        return env

    @field_validator("runs_dir", "hostfile", "env_file")
    @classmethod
    def _is_at_home(cls, path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.expanduser(path))  # noqa: PTH111 - never raises

    @field_validator("workdir")
    @classmethod
    def _has_no_home(cls, path: Path | None) -> Path | None:
        if path is not None and str(path).startswith("~"):
            raise Refused(
                f"{str(path)!r}: whose home is not known", "an absolute path, or one below ."
            )
        return path

    @field_validator("hostfile")
    @classmethod
    def _is_not_beside_hosts(cls, hostfile: Path | None, info: ValidationInfo) -> Path | None:
        if hostfile is not None and info.data.get("hosts"):
            message = f"{str(hostfile)!r} and hosts exclude each other"
            raise Refused(message, "leave one of them out")
        return hostfile


class Job(Settings):
    """A whole job: settings and a program.

    Build it directly for the Python API: `Job(script="train.py", nodes=2)`.
    """

    script: str
    """Script, module (with `module`) or program (with `no_python`) that every rank runs."""
    args: tuple[str, ...] = ()
    """Arguments of the script, unchanged."""
    module: bool = False
    """`script` is a module name, as in `python -m`."""
    no_python: bool = False
    """`script` is a program that is not Python."""

    @field_validator("script", mode="before")
    @classmethod
    def _may_be_a_path(cls, script: object) -> object:
        return os.fspath(script) if isinstance(script, os.PathLike) else script

    @field_validator("args", mode="before")
    @classmethod
    def _may_be_paths(cls, args: object) -> object:
        if not isinstance(args, (list, tuple)):
            return args
        return [os.fspath(word) if isinstance(word, os.PathLike) else word for word in args]


class Range(Frozen):
    """Bounds on a number."""

    min: int | None = None
    max: int | None = None
    multiple_of: int | None = Field(default=None, ge=1)

    def broken_by(self, value: int) -> str:
        """Return the bound that `value` violates, as the end of a sentence; "" if none."""
        if self.min is not None and value < self.min:
            return f"at least {self.min}"
        if self.max is not None and value > self.max:
            return f"at most {self.max}"
        if self.multiple_of is not None and value % self.multiple_of:
            return f"a multiple of {self.multiple_of}"
        return ""


class Constraints(Frozen):
    """Constraints of a recipe; a launch that violates them is refused before it starts."""

    world_size: Range = Range()
    nproc_per_node: Range = Range()
    nodes: Range = Range()
    strategy: tuple[StrategyName, ...] = ()


class Layout(Frozen):
    """A way to distribute a script's training over ranks."""

    ranks: PositiveInt
    args: tuple[str, ...] = ()
    """Arguments of the script for this layout."""
    alone: tuple[str, ...] | None = None
    """Arguments of the one rank that it is compared with; None: the script's `alone`."""


class Verify(Frozen):
    """What `distrun verify` compares."""

    reference: str | None = Field(default=None, pattern=r"^\w+$")
    """A script in the same directory, without .py, that trains the same on one rank."""
    alone: tuple[str, ...] = ()
    """Without such a file: arguments that make this script run on one rank."""
    args: tuple[str, ...] = ()
    """Arguments of every training, such as a shorter warm-up, so that steps come after it."""
    layouts: dict[str, Layout] = Field(default_factory=dict)


class Header(Frozen):
    """The table `[tool.distrun]` in a recipe's inline metadata (PEP 723)."""

    strategy: StrategyName | None = None
    nproc_per_node: Nproc | None = None
    constraints: Constraints = Constraints()
    verify: Verify = Verify()
