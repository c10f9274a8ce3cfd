"""A Slurm cluster of two nodes: real daemons, each on a machine of namespaces of its own.

`login` runs slurmctld and munged; `n1` and `n2` run slurmd. The configuration, the key and the
spool directories are in the caller's directory, and SLURM_CONF leads there, so /etc/slurm is
not touched. Accounting (sacct) is off: it needs a database. A requeued job is eligible again
when its credential has expired: after 5 s here (cred_expire), after 120 s as Slurm comes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.hosts import Hosts
from tests.cluster.needs import program_path
from tests.conftest import wait_until

NODES = ("n1", "n2")
LOGIN = "login"
KILL_WAIT_S = 3
"""Between SIGTERM and SIGKILL to a job that is cancelled, at its time limit or preempted."""
PROGRAMS = ("slurmctld", "slurmd", "srun", "munged")
_DAEMONS = ("slurmctld", "slurmd", "munged")
_CONFIG = """\
ClusterName=lab
SlurmctldHost=login({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=1
JobRequeue=1
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmdSpoolDir={directory}/spool-%n
SlurmdLogFile={directory}/slurmd-%n.log
SlurmctldLogFile={directory}/slurmctld.log
StateSaveLocation={directory}/state
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
InactiveLimit=0
KillWait={kill_wait_s}
MessageTimeout=5
SlurmdTimeout=10
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory=2048 Gres=gpu:2 State=UNKNOWN
NodeName=n1 NodeAddr={n1}
NodeName=n2 NodeAddr={n2}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP
PartitionName=debug Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=spot PriorityTier=1 PreemptMode=REQUEUE GraceTime={kill_wait_s}
"""
_GPUS = "AutoDetect=off\nName=gpu File=/dev/null,/dev/zero Flags=nvidia_gpu_env\n"
"""Two GPUs a node that only Slurm believes in: it hands out their numbers."""


class Slurm:
    """A cluster that is up; `close` takes it away.

    Jobs of the partition `debug` preempt those of `spot`, which get SIGTERM and, after
    KILL_WAIT_S, are requeued. Each node has two GPUs in name (`--gres=gpu:1`).

    Args:
        directory: Where its files are kept; the caller's.
        visible: Directories of this machine that the nodes show, besides the working tree and
            the environment.
    """

    def __init__(self, directory: Path, visible: Sequence[Path] = ()) -> None:
        self.directory = directory
        (directory / "hosts").mkdir()
        self.hosts = Hosts(directory / "hosts", [LOGIN, *NODES], [directory, *visible], sshd=False)
        try:
            self._configure()
            self._start(LOGIN, "munged", *self._munge_options())
            self._start(LOGIN, "slurmctld", "-c")
            for node in NODES:
                self.start_node(node)
            self.until_idle()
        except BaseException:  # a half-made cluster goes too, also at Ctrl-C
            for log in directory.glob("*.log"):
                print(log.name, log.read_text()[-2000:], sep="\n")
            self.close()
            raise
        for machine in self.hosts.machines.values():
            machine.settle()

    def _configure(self) -> None:
        addresses = self.hosts.addresses
        text = _CONFIG.format(
            controller=addresses[LOGIN],
            directory=self.directory,
            kill_wait_s=KILL_WAIT_S,
            cpus=os.cpu_count(),
            **{node: addresses[node] for node in NODES},
        )
        (self.directory / "slurm.conf").write_text(text)
        (self.directory / "gres.conf").write_text(_GPUS)
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(64))
        (self.directory / "state").mkdir()
        for node in NODES:
            (self.directory / f"spool-{node}").mkdir()

    def _munge_options(self) -> list[str]:
        """Return what keeps munged in the directory, which others need not be able to reach."""
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        files["seed-file"] = "seed"
        options = [f"--{name}={self.directory}/munge.{end}" for name, end in files.items()]
        return ["--force", *options]

    def _start(self, name: str, program: str, *words: str) -> None:
        """Start a daemon; it has no mark of the test that asks for it."""
        environ = {"PATH": os.defpath, "SLURM_CONF": str(self.directory / "slurm.conf")}
        done = self.hosts.run(name, [str(program_path(program)), *words], env=environ)
        assert done.returncode == 0, f"{program} on {name}: {done.stderr}"

    def environ(self) -> dict[str, str]:
        """Return this environment, with which Slurm's commands find the cluster."""
        return {**os.environ, "SLURM_CONF": str(self.directory / "slurm.conf")}

    def run(
        self, *words: str | Path, timeout_s: float = 30.0, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm here, as on a login node; options are `subprocess.run`'s."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            list(map(str, words)),
            **{  # type: ignore[call-overload]
                "env": self.environ(),
                "capture_output": True,
                "text": True,
                "timeout": timeout_s,
                "stdin": subprocess.DEVNULL,
                **options,
            },
        )
        return done

    def _said(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def sbatch(self, script: Path, *options: str, cwd: Path | None = None) -> str:
        """Submit a script from its directory, or another; return the job's id."""
        words = ["sbatch", "--parsable", *options, str(script)]
        done = self.run(*words, cwd=cwd or script.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def squeue(self) -> dict[str, str]:
        """Return the state of each job that waits, runs or is about to end."""
        lines = self._said("squeue", "-h", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def job(self, job: str) -> dict[str, str]:
        """Return what scontrol knows of a job, also within five minutes after its end."""
        return dict(re.findall(r"(\w+)=(\S*)", self._said("scontrol", "show", "job", job)))

    def until(self, job: str, *states: str, timeout_s: float = 30.0) -> None:
        """Wait until a job is in one of the states."""
        wait_until(lambda: self.job(job)["JobState"] in states, timeout_s, f"{job} to be {states}")

    def node_states(self) -> dict[str, str]:
        """Return the state of each node in sinfo's words, e.g. `idle`, `allocated`, `down*`."""
        lines = self._said("sinfo", "-h", "-N", "-p", "debug", "-o", "%n %T").splitlines()
        return dict(line.split() for line in lines)

    def until_idle(self) -> None:
        """Wait until both nodes are free."""
        idle = dict.fromkeys(NODES, "idle")
        wait_until(lambda: self.node_states() == idle, 30, "idle nodes")

    def down(self, node: str) -> None:
        """Set a node down, as an administrator does.

        Its jobs are requeued; with --no-requeue, and outside of sbatch, they end with NODE_FAIL.
        """
        self._said("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Let a node that is down have jobs again."""
        self._said("scontrol", "update", f"nodename={node}", "state=resume")

    def start_node(self, node: str) -> None:
        """Start the daemon of a node, e.g. after `hosts.power_off` and `hosts.mend`."""
        self._start(node, "slurmd")

    @contextmanager
    def busy_controller(self) -> Iterator[None]:
        """Let slurmctld answer nobody: commands give up after MessageTimeout (5 s)."""
        (pid,) = self._daemon(LOGIN, "slurmctld")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _daemon(self, name: str, program: str) -> list[int]:
        """Return the pids here of a daemon on a machine."""
        found = self.hosts.machines[name].processes()
        return [pid for pid, line in found.items() if _program(line) == program]

    def restore(self) -> None:
        """Make all as at the start: no job, no process of one, both nodes idle."""
        if jobs := self.squeue():
            self._said("scancel", *jobs)
        self.hosts.restore(keep=lambda line: _program(line) in _DAEMONS)
        for node in NODES:
            if not self._daemon(node, "slurmd"):
                self.start_node(node)
            if self.node_states()[node].startswith(("down", "drain")):
                self.resume(node)
        wait_until(lambda: not self.squeue(), 30, "an empty queue")
        self.until_idle()

    def close(self) -> None:
        """Take it away with all that runs there."""
        self.hosts.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _program(command_line: str) -> str:
    return Path(command_line.split(" ")[0]).name
