"""Nodes that Slurm gives: those of the job we are in, or asked for here and given back."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from distrun.errors import MachineError, UsageError

_LIMIT_S = 60.0
_END_LIMIT_S = 5.0
_WHOLE = ("--exclusive", "--mem=0")
"""All cores, GPUs and memory: `--nodes` alone is a core of each, and no GPU."""
_HOLD = 'echo "$SLURM_JOB_ID $SLURM_JOB_NODELIST"; exec cat >&2'
"""Says which nodes they are, and holds them as long as its standard input is open."""


class Allocation:
    """Some nodes.

    Args:
        nnodes: How many are asked for where there is no job yet; None takes those there are.
        share: What is asked for of each, as words for salloc; whole nodes, if nothing else.

    Raises:
        UsageError: There is no job, and nothing is asked for; or the job has others.
        MachineError: Slurm is not here, gives no nodes, or does not name them.
    """

    def __init__(self, nnodes: int | None, share: Sequence[str] = ()) -> None:
        self._salloc: subprocess.Popen[bytes] | None = None
        self.job_id = os.environ.get("SLURM_JOB_ID", "")
        nodes = os.environ.get("SLURM_JOB_NODELIST", "")
        if not self.job_id and nnodes is None:
            raise UsageError("--on slurm is in no allocation", "--nodes N asks for one")
        if not self.job_id:
            self.job_id, nodes = self._ask(nnodes or 1, share or _WHOLE)
        try:
            self.hosts = _hosts(nodes)
        except MachineError:
            self.close()
            raise
        if nnodes is not None and len(self.hosts) != nnodes:
            self.close()
            raise UsageError(
                f"--nodes {nnodes} are not the {len(self.hosts)} of this allocation",
                "leave --nodes out inside of an allocation",
            )

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
                    f"Slurm gives no {nnodes} nodes: salloc: {_error_in(said) or why}",
                    f"{' '.join(share)} was asked for: --gpus free:N asks for a part;"
                    " SALLOC_PARTITION and the like are heeded; or go into an allocation of your"
                    " own",
                )
        return told[0], told[1]

    def close(self) -> None:
        """Give back what was asked for here."""
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
    """Return the names of the nodes of a list: `n1`, `n2` of `n[1-2]`."""
    child = _start(("scontrol", "show", "hostnames", nodes), stdin=subprocess.DEVNULL)
    hosts = child.communicate()[0].decode(errors="replace").split()
    if child.returncode or not hosts:
        raise MachineError(
            f"scontrol names no hosts of this allocation, {nodes!r} (exit code {child.returncode})",
            f"`scontrol show hostnames {shlex.quote(nodes)}` must print one a line",
        )
    return hosts


def _error_in(said: IO[bytes]) -> str:
    """Return the last line that says error, else the last of all, else ""."""
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
            start_new_session=True,  # Ctrl-C is ours: what was asked for is given back in order
        )
    except OSError as error:
        raise MachineError(
            f"--on slurm needs {words[0]}: {error.strerror}", "run it on a machine of the cluster"
        ) from None


def _line_within(fd: int, limit_s: float) -> str | None:
    """Return the first line, whole or up to the end of all; None if neither comes in time."""
    deadline = time.monotonic() + limit_s
    data = b""
    while b"\n" not in data and (left_s := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left_s)[0]:
            more = os.read(fd, 4096)
            if not more:
                return data.decode(errors="replace")
            data += more
    return data.partition(b"\n")[0].decode(errors="replace") if b"\n" in data else None
