"""The nodes of a Slurm allocation: the current one, or a new one that is released at the end."""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from distrun import env
from distrun.errors import MachineError, UsageError
from distrun.nodes.boot import line_for_sh
from distrun.schedulers.place import Place
from distrun.spec.hosts import hosts_of
from distrun.spec.job import Settings

_LIMIT_S = 60.0
_END_LIMIT_S = 5.0
_STEP = (
    *("--overlap", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--mem=0"),
    *("--cpu-bind=none", "--gpu-bind=none", "--kill-on-bad-exit=1"),
)
"""One task beside other steps, with all cores, memory and GPUs of the job on its node (srun(1));
without the last three a task may be bound to one core, and srun may wait for it for ever."""
_WHOLE = ("--exclusive", "--mem=0")
"""All cores, GPUs and memory: `--nodes` alone means one core per node and no GPU."""
_HOLD = 'echo "$SLURM_JOB_ID $SLURM_JOB_NODELIST"; exec cat >&2'
"""Prints the job and its nodes, and holds the allocation until its standard input is closed."""
_CURES = (
    (
        "No module named",
        "distrun is missing there: --bootstrap sends it, --python names one with it",
    ),
    ("not found", "there is no such Python on {node}: --python names one"),
    ("Invalid job id", "the allocation has ended"),
    ("Requested node configuration", "{node} is not in this allocation"),
)
"""Words of srun, or of the shell there -> what to do."""


def is_around(environ: Mapping[str, str]) -> bool:
    """Return whether the nodes of the current Slurm job have to be reached.

    A job of one node that is this machine is like any machine.

    Raises:
        UsageError: This process is one of several tasks of a step.
    """
    if not (environ.get("SLURM_JOB_ID") and environ.get("SLURM_JOB_NODELIST")):
        return False
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "SLURM_STEP_ID" in environ and tasks != "1":
        raise UsageError(
            f"srun started distrun in {tasks} tasks; distrun starts the nodes of a job by itself",
            "write `distrun launch …` without srun, once in the job",
        )
    here = socket.gethostname().partition(".")[0]
    return environ["SLURM_JOB_NODELIST"] not in (here, environ.get("SLURMD_NODENAME", here))


def holds(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Return whether the hosts of the settings are nodes of the current Slurm job.

    Raises:
        UsageError: There is a job, and it has not all of them.
    """
    said = environ.get("SLURM_JOB_NODELIST", "")
    if not (environ.get("SLURM_JOB_ID") and said):
        return False
    held = {host.name for host in hosts_of(said)}
    if others := [host.name for host in settings.hosts if host.name not in held]:
        raise UsageError(
            f"{settings.hosts_flag} names {others[0]!r}, which is not a node of this Slurm job,"
            f" {said}",
            "leave it out, and the nodes of the job are used; --on ssh reaches other machines",
        )
    return True


@contextmanager
def nodes(settings: Settings) -> Iterator[list[Place]]:
    """Yield the nodes of the current allocation, or of one that is requested and released here.

    Raises:
        UsageError: See `Allocation`.
        MachineError: See `Allocation`.
    """
    named = "nodes" in settings.model_fields_set and env.RUN not in os.environ
    asked = settings.nodes.max + settings.spare if named else None  # else what the job was given
    allocation = Allocation(asked, _share(settings))
    try:
        yield [
            Place(
                host,
                host,
                job_id=allocation.job_id,
                python=settings.python or "",
                gpus=_gpus_of_job(os.environ),
                bootstrap=settings.bootstrap,
            )
            for host in allocation.hosts
            if not settings.hosts or host in {wanted.name for wanted in settings.hosts}
        ]
    finally:
        allocation.close()


def command(place: Place, module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a module there as a step with all that the job has there."""
    line = line_for_sh(module, arguments, place.python, bootstrap=place.bootstrap)
    where = [f"--jobid={place.job_id}", f"--nodelist={place.target}"]
    # A step has no GPU, even of a job with whole nodes, unless it asks for them.
    gpus = [f"--gpus-per-node={place.gpus}"] if place.gpus else []
    return ["srun", "--quiet", *where, *_STEP, *gpus, "sh", "-c", line]


def _gpus_of_job(environ: Mapping[str, str]) -> int:
    """Return how many GPUs the current job has on a node; 0 if it has none or does not say."""
    said = environ.get("SLURM_GPUS_ON_NODE") or environ.get("SLURM_GPUS_PER_NODE", "")
    count = said.rpartition(":")[2]  # `h100:8`
    return int(count) if count.isdigit() else 0


def shell(place: Place) -> list[str]:
    """Return []: rsync does not go through srun."""
    return []


def cure(name: str, problem: str) -> str:
    """Return what to do about a node that cannot be reached, "" if that is unknown."""
    return next((text.format(node=name) for words, text in _CURES if words in problem), "")


def _share(settings: Settings) -> tuple[str, ...]:
    """Return what the job needs of each node, as options of salloc; (): whole nodes.

    GPU numbers refer to a whole node: in a part of it GPUs are renumbered.
    """
    if not (settings.gpus or "").startswith("free:"):
        return ()
    gpus = int(str(settings.gpus).removeprefix("free:"))
    ranks = settings.nproc_per_node if isinstance(settings.nproc_per_node, int) else gpus
    return (f"--gpus-per-node={gpus}", "--ntasks-per-node=1", f"--cpus-per-task={ranks}")


class Allocation:
    """An allocation of nodes.

    Args:
        nnodes: Number of nodes to request without a current job; None: use the current job.
        share: What to request of each node, as options of salloc; default: whole nodes.

    Raises:
        UsageError: There is no current job and no request, or the job has fewer nodes.
        MachineError: Slurm is missing, grants no nodes, or does not list them.
    """

    def __init__(self, nnodes: int | None, share: Sequence[str] = ()) -> None:
        self._salloc: subprocess.Popen[bytes] | None = None
        self.job_id = os.environ.get("SLURM_JOB_ID", "")
        nodes = os.environ.get("SLURM_JOB_NODELIST", "")
        if not self.job_id and nnodes is None:
            raise UsageError("--on slurm: there is no allocation", "--nodes N requests one")
        if not self.job_id:
            self.job_id, nodes = self._ask(nnodes or 1, share or _WHOLE)
        try:
            self.hosts = _hosts(nodes)
        except MachineError:
            self.close()
            raise
        if nnodes is not None and len(self.hosts) < nnodes:
            self.close()
            raise UsageError(
                f"--nodes {nnodes} is more than the {len(self.hosts)} nodes of this allocation",
                "leave --nodes out inside an allocation",
            )
        self.hosts = self.hosts[:nnodes]

    def _ask(self, nnodes: int, share: Sequence[str]) -> tuple[str, str]:
        words = ["salloc", "--quiet", f"--nodes={nnodes}", *share, "sh", "-c", _HOLD]
        with tempfile.TemporaryFile() as said:
            self._salloc = _start(words, stdin=subprocess.PIPE, stderr=said)
            assert self._salloc.stdout
            line = _line_within(self._salloc.stdout.fileno(), _LIMIT_S)
            told = (line or "").split()
            if len(told) != 2:
                ended, late = self._salloc, line is None
                self.close()
                why = (
                    f"no answer within {_LIMIT_S:g} s" if late else f"exit code {ended.returncode}"
                )
                raise MachineError(
                    f"Slurm does not grant {nnodes} nodes: salloc: {_error_in(said) or why}",
                    f"{' '.join(share)} was requested: --gpus free:N requests a part of a"
                    " node; SALLOC_PARTITION and other variables of salloc work; or run"
                    " inside your own allocation",
                )
        return told[0], told[1]

    def close(self) -> None:
        """Release the allocation if it was requested here."""
        if self._salloc is None:
            return
        assert self._salloc.stdin and self._salloc.stdout
        self._salloc.stdin.close()
        try:
            self._salloc.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:  # it still waits for nodes
            self._salloc.terminate()
            self._salloc.wait()
        self._salloc.stdout.close()
        self._salloc = None


def _hosts(nodes: str) -> list[str]:
    """Return the names in a node list: `n1`, `n2` for `n[1-2]`."""
    child = _start(("scontrol", "show", "hostnames", nodes), stdin=subprocess.DEVNULL)
    hosts = child.communicate()[0].decode(errors="replace").split()
    if child.returncode or not hosts:
        raise MachineError(
            f"scontrol lists no hosts of this allocation, {nodes!r} (exit code {child.returncode})",
            f"`scontrol show hostnames {shlex.quote(nodes)}` must print one name per line",
        )
    return hosts


def _error_in(said: IO[bytes]) -> str:
    """Return the last line with an error, else the last line, else ""."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    last = next((line for line in lines[::-1] if "error" in line), "".join(lines[-1:]))
    return last.strip().removeprefix("salloc: ")


def _start(
    words: Sequence[str], *, stdin: int, stderr: int | IO[bytes] = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C is handled here: the allocation is released first
        )
    except OSError as error:
        raise MachineError(
            f"--on slurm needs {words[0]}: {error.strerror}",
            "run distrun on a machine of the cluster",
        ) from None


def _line_within(fd: int, limit_s: float) -> str | None:
    """Return the first line, or all text up to the end; None if neither arrives in time."""
    deadline = time.monotonic() + limit_s
    data = b""
    while b"\n" not in data and (left_s := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left_s)[0]:
            more = os.read(fd, 4096)
            if not more:
                return data.decode(errors="replace")
            data += more
    return data.partition(b"\n")[0].decode(errors="replace") if b"\n" in data else None
