"""A launch of the worker that goes on while something is done to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distrun.processes import marked
from tests.cluster.hosts import Hosts
from tests.conftest import marked_processes
from tests.others.launches import ENVIRON
from tests.others.launches import Layout as Size
from tests.others.launches import torchrun as torchrun_commands
from tests.process.launched import pid_of

WORKER = Path(__file__).with_name("worker.py")
NAMES = ("n01", "n02")
GRACE_S, LINGER_S, HANG_TIMEOUT_S = 3.0, 2.0, 5.0


@dataclass(frozen=True)
class Layout:
    """Where the four ranks are."""

    id: str
    nodes: int
    said: str
    is_remote: bool = False

    @property
    def node_of_rank_3(self) -> str:
        """Its name in verdicts."""
        return NAMES[1] if self.is_remote else f"node{self.nodes - 1}"


ONE = Layout("1x4", 1, "one node with 4 ranks")
TWO = Layout("2x2", 2, "two emulated nodes with 2 ranks each")
SSH = Layout("ssh", 2, "two hosts with 2 ranks each, over ssh", is_remote=True)
LAYOUTS = {layout.id: layout for layout in (ONE, TWO, SSH)}


@dataclass
class Running:
    """One launch, by distrun or by torchrun.

    What is to differ from the usual is set before `start`.
    """

    layout: Layout
    by: str
    cwd: Path
    program: Sequence[str]
    hosts: Hosts | None = None
    words: list[str] = field(default_factory=list)
    """More flags of the launcher."""
    names: list[str] = field(default_factory=lambda: [*NAMES])
    """The hosts."""
    environ: dict[str, str] = field(default_factory=dict)
    node: int | None = None
    """The only node that is started, by hand; None: all of them."""
    master: str = "127.0.0.1:0"
    """Where the nodes meet, if they are started by hand."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start the launcher, or one a node."""
        base = self.hosts.ssh_environ() if self.layout.is_remote and self.hosts else {**os.environ}
        home = {"TMPDIR": str(self.cwd), "XDG_STATE_HOME": str(self.cwd)}
        environ = base | ENVIRON | home | {"DISTRUN_TEST_MARK": self.mark} | self.environ
        if self.layout.is_remote:
            del environ["GLOO_SOCKET_IFNAME"]
        commands = self._torchrun() if self.by == "torchrun" else [self._distrun()]
        with (self.cwd / "screen").open("wb") as screen:
            for command in commands:
                child = subprocess.Popen(
                    command,
                    cwd=self.cwd,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=screen,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self.children.append(child)

    def _distrun(self) -> list[str]:
        nproc = 4 // self.layout.nodes
        where = [f"--nodes={self.layout.nodes}"] if self.node is None else []
        if self.layout.is_remote:
            where = ["--hosts", ",".join(self.names)]
        return [
            *(sys.executable, "-m", "distrun", "launch", "--no-check", *where),
            *(f"--nproc-per-node={nproc}", f"--grace={GRACE_S:g}", f"--linger={LINGER_S:g}"),
            *(f"--hang-timeout={HANG_TIMEOUT_S:g}", *self.words, *self.program),
        ]

    def _torchrun(self) -> list[list[str]]:
        size = Size(self.layout.nodes, 4 // self.layout.nodes)
        words = [f"--shutdown-timeout={GRACE_S:g}", *self.words]
        if self.node is not None:
            host, _, port = self.master.rpartition(":")
            meet = [f"--master-addr={host}", f"--master-port={port}", f"--node-rank={self.node}"]
            size_words = [f"--nnodes={self.layout.nodes}", "--nproc-per-node=2"]
            base = [sys.executable, "-m", "torch.distributed.run", *size_words, *meet]
            return [[*base, *words, "--", *self.program]]
        commands = torchrun_commands(size, self.cwd / "logs", tuple(self.program))
        if any(word.startswith("--master-port") for word in words):
            commands = [[w for w in command if w != "--standalone"] for command in commands]
        dashes = commands[0].index("--")
        shown = [[w for w in command if w != "--redirects=3"] for command in commands]
        return [[*c[: dashes - 1], *words, *c[dashes - 1 :]] for c in shown]

    @property
    def launcher(self) -> subprocess.Popen[bytes]:
        """The command that a person has started, on node 0."""
        return self.children[0]

    @property
    def screen(self) -> str:
        """All that has been printed so far."""
        return (self.cwd / "screen").read_text(errors="replace")

    @property
    def run_id(self) -> str:
        """The run's id, "" before there is one, or if it is gone."""
        runs = [path.name for path in self.cwd.glob("runs/*") if path.is_dir()]
        return runs[0] if runs else ""

    def pid_of(self, who: str) -> int:
        """Return the pid of `launcher`, `supervisor`, `agent1` or `forkserver1`.

        Raises:
            LookupError: This launcher has no such process.
        """
        if who == "launcher":
            return self.launcher.pid
        if self.by == "torchrun":
            if not who.startswith("agent"):
                raise LookupError(who)
            return self.children[int(who[-1])].pid
        if self.layout.is_remote and who.startswith("agent"):
            return self._pid_on(NAMES[int(who[-1])], pid_of(self.cwd, who))
        return pid_of(self.cwd, who)

    def _pid_on(self, host: str, there: int) -> int:
        """Return the pid here of a process of a host, by the one that it has there."""
        assert self.hosts
        for pid in self.hosts.pids(host):
            status = Path(f"/proc/{pid}/status").read_text()
            if int(status.partition("NSpid:")[2].splitlines()[0].split()[-1]) == there:
                return pid
        raise LookupError(f"process {there} on {host}")

    def send(self, who: str, signum: int) -> None:
        """Send a signal to a process; `group` is all that Ctrl-C in a terminal reaches."""
        if who == "group":
            for child in self.children:
                os.killpg(child.pid, signum)
        else:
            os.kill(self.pid_of(who), signum)

    def is_ready(self) -> bool:
        """Whether all ranks are in the middle of training."""
        return len([*self.cwd.glob("ready*")]) == 4

    def fault_is_now(self) -> None:
        """Write down the time of a fault that comes from outside."""
        (self.cwd / "fault").write_text(repr(time.time()))

    @property
    def fault_at(self) -> float | None:
        """When the fault was, by the clock; None before it."""
        path = self.cwd / "fault"
        return float(text) if path.exists() and (text := path.read_text()) else None

    def let_it_end(self) -> None:
        """Let the ranks end training."""
        (self.cwd / "end").touch()

    @property
    def is_over(self) -> bool:
        """Whether all launchers have ended."""
        return all(child.poll() is not None for child in self.children)

    def left(self) -> dict[int, str]:
        """Return the processes that are left of it, here and on its hosts."""
        found = marked_processes(self.mark)
        for pid in marked(self.run_id) if self.run_id else ():
            found.setdefault(pid, "of the run")
        for name in self.hosts.names if self.hosts and self.layout.is_remote else ():
            on_host = self.hosts.pids(name).items()  # sshd cannot know that a link is cut
            found |= {pid: line for pid, line in on_host if not line.startswith("sshd: ")}
        return found

    def kill(self) -> None:
        """End what is left of it."""
        for pid in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended meanwhile
        for child in self.children:
            child.wait()

    def record(self, name: str) -> dict[str, object]:
        """Return a file of JSON of the run; {} if there is none."""
        files = [*self.cwd.glob(f"runs/*/{name}")]
        found: dict[str, object] = json.loads(files[0].read_text()) if files else {}
        return found


def wait_for(condition: Callable[[], object], limit_s: float) -> bool:
    """Wait for a condition; return whether it came true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # the clock only paces the asking
    return True
