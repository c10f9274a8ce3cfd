"""A script of others, launched by torchrun and by distrun, and what came of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
LIMIT_S = 120.0
"""No launch takes longer, torchrun's slowest included: it hangs."""
ENVIRON = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}


class Layout(NamedTuple):
    """How many nodes, and how many ranks on each."""

    nodes: int
    nproc_per_node: int

    def __str__(self) -> str:
        return f"{self.nodes}x{self.nproc_per_node}"


@dataclass(frozen=True)
class Script:
    """A script beside this file, and how it is called."""

    name: str
    calls: tuple[tuple[str, ...], ...] = (("out",),)
    """The words of each launch; they follow one another in one directory."""
    exit_code: int = 0
    layouts: tuple[Layout, ...] = (Layout(1, 2), Layout(2, 1))
    needs: str = ""
    """A module that is not installed with distrun's own tests."""
    changing: tuple[str, ...] = ()
    """Files that hold a time or a duration: only their names are compared."""
    starts_ranks: bool = False
    """Its ranks are processes of its own: gloo aborts one at its end now and then, by any launcher.
    """


@dataclass(frozen=True)
class Outcome:
    """What two launchers must agree on."""

    exit_codes: list[int]
    losses: dict[int, list[str]]
    """Of each rank, the lines that it printed with `loss` and a number."""
    files: dict[str, bytes]


def launched(script: Script, by: str, layout: Layout, directory: Path) -> Outcome:
    """Launch a script in a new directory, once for each of its calls."""
    (directory / "out").mkdir(parents=True)
    codes, losses = [], {rank: [] for rank in range(layout.nodes * layout.nproc_per_node)}
    for number, words in enumerate(script.calls):
        logs = directory / f"logs{number}"
        program = (str(HERE / f"{script.name}.py"), *words)
        if by == "torchrun":
            commands = torchrun(layout, logs, program)
        else:
            commands = [distrun(layout, logs, by, program)]
        codes.append(run_to_end(commands, directory))
        for rank in losses:
            losses[rank] += losses_of(log_of(rank, by, layout, logs))
    return Outcome(codes, losses, files_of(directory, script))


def torchrun(layout: Layout, logs: Path, program: tuple[str, ...]) -> list[list[str]]:
    """Return the line of each node, as one would paste them into terminals."""
    base = [sys.executable, "-m", "torch.distributed.run", "--redirects=3"]
    base += [f"--nnodes={layout.nodes}", f"--nproc-per-node={layout.nproc_per_node}"]
    if layout.nodes == 1:
        return [[*base, "--standalone", f"--log-dir={logs}/node0", "--", *program]]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        base += ["--master-addr=127.0.0.1", f"--master-port={listener.getsockname()[1]}"]
    return [
        [*base, f"--node-rank={node}", f"--log-dir={logs}/node{node}", "--", *program]
        for node in range(layout.nodes)
    ]


def distrun(layout: Layout, logs: Path, by: str, program: tuple[str, ...]) -> list[str]:
    method = {"warm": "forkserver", "cold": "spawn"}[by]
    return [
        *(sys.executable, "-m", "distrun", "launch", "--no-check", f"--runs-dir={logs}"),
        *(f"--nodes={layout.nodes}", f"--nproc-per-node={layout.nproc_per_node}"),
        *(f"--start-method={method}", *program),
    ]


def run_to_end(commands: list[list[str]], cwd: Path) -> int:
    """Run the commands side by side; return the first exit code that is not 0."""
    with (cwd / "screen").open("ab") as screen:
        processes = [
            subprocess.Popen(
                command,
                cwd=cwd,
                env=os.environ | ENVIRON,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
            )
            for command in commands
        ]
    try:
        codes = [process.wait(LIMIT_S) for process in processes]
    except subprocess.TimeoutExpired as error:
        for process in processes:
            process.terminate()  # distrun writes where its ranks were; what is left is killed
        for process in processes:
            process.wait(LIMIT_S)
        printed = (cwd / "screen").read_text(errors="replace")
        pytest.fail(f"{' '.join(map(str, error.cmd))} took over {LIMIT_S} s:\n{printed}")
    return next(filter(None, codes), 0)


def log_of(rank: int, by: str, layout: Layout, logs: Path) -> str:
    node, local_rank = divmod(rank, layout.nproc_per_node)
    if by == "torchrun":
        pattern = f"node{node}/*/attempt_0/{local_rank}/std*.log"
    else:
        pattern = f"*/logs/node{node}/rank{rank}.log"
    return "".join(path.read_text(errors="replace") for path in logs.glob(pattern))


def losses_of(log: str) -> list[str]:
    # Sorted, for torchrun's stdout and stderr are two files.
    return sorted(line for line in re.split(r"[\r\n]+", log) if re.search(r"\bloss\b\W+\d", line))


def files_of(directory: Path, script: Script) -> dict[str, bytes]:
    """Return what the script has written, without what changes from run to run."""
    found = {}
    for path in sorted(filter(Path.is_file, (directory / "out").rglob("*"))):
        name = str(path.relative_to(directory / "out"))
        data = path.read_bytes().replace(os.fsencode(directory), b"<dir>")
        if any(fnmatch(name, pattern) for pattern in script.changing):
            data = b""
        if "tfevents" in name:  # times in the name and, of a fixed width, in each record
            name, data = re.sub(r"tfevents\..*", "tfevents", name), b"%d bytes" % len(data)
        found[name] = data
    return found
