"""A script in a directory of its own, run by python and by distrun, and what came of it."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from distrun.api.runs import Marks, RunDirectory
from distrun.streams import STDERR, STDOUT
from tests.conftest import SCENARIOS, only_run

FIDELITY = SCENARIOS / "fidelity"
Launch = Callable[..., subprocess.CompletedProcess[str]]

# The launcher has to tell a rank its place in the job, and marks its processes.
LAUNCHER_SETS = frozenset(
    (
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
        *("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"),
        *("TORCHELASTIC_USE_AGENT_STORE", "TORCH_NCCL_ASYNC_ERROR_HANDLING"),
        *("DISTRUN_RUN_DIR", "DISTRUN_TAG", "DISTRUN_REPORT", "DISTRUN_RECORDS"),
        "TORCH_FR_BUFFER_SIZE",
        *("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),  # every node is on this machine
    )
)


_ERRORS = b"\n--- stderr:\n"


@dataclass(frozen=True)
class Case:
    """A script, and how it is called."""

    name: str
    script: str = ""
    """Source of `recipe.py`; without one, the file of that name among the scenarios."""
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    call: tuple[str, ...] = ("recipe.py",)
    stdin: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0
    """As a shell would see it: 128+n for death by signal n."""
    prints: str = ""
    """A part of the output, so that a case cannot pass by doing nothing."""
    starts_cold: str = ""
    """Why the launcher says that it starts this script cold by itself."""
    run_timeout_s: float = 60.0


@dataclass(frozen=True)
class Outcome:
    output: str
    exit_code: int
    files: dict[str, str]


def normalised(text: str, directory: Path) -> str:
    """Take out what may differ: addresses of objects, and the directory's own name."""
    text = text.replace(str(directory), "<dir>")
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def without_the_launchers_variables(output: str) -> str:
    """Drop the lines `environment NAME=…` of what a launcher has to set."""
    return "".join(
        line
        for line in output.splitlines(keepends=True)
        if line.removeprefix("environment ").partition("=")[0] not in LAUNCHER_SETS
    )


def written(directory: Path) -> dict[str, str]:
    """Return the files below a directory, as what a reader would see of them."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if name.partition("/")[0] == "runs" or path.is_dir():
            continue
        is_code = path.suffix == ".pyc"  # holds the time of its source
        text = "" if is_code else path.read_bytes().decode("utf-8", "backslashreplace")
        found[name] = normalised(text, directory)
    return found


def laid_out(case: Case, directory: Path) -> Path:
    source = case.script
    if not source and (FIDELITY / f"{case.name}.py").is_file():
        source = (FIDELITY / f"{case.name}.py").read_text()
    encoding = "latin-1" if "coding: latin-1" in source else "utf-8"
    files = {**case.files, **({"recipe.py": source} if source else {})}
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(text.encode(encoding))
    for name, target in case.links.items():
        (directory / name).symlink_to(target)
    return directory


def environment(case: Case) -> dict[str, str]:
    # The launcher shares the cores out among the ranks; python would be told nothing.
    environ = {"OMP_NUM_THREADS": "2", **os.environ, **case.environ}
    for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):  # they would hide differences
        environ.pop(name, None)
    if "PYTHONPATH" in case.environ and "PYTHONPATH" in os.environ:
        environ["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    return environ


def by_python(case: Case, directory: Path, *, apart: bool = False) -> Outcome:
    laid_out(case, directory)
    done = subprocess.run(
        [sys.executable, "-u", *case.call],
        cwd=directory,
        env=environment(case),
        input=case.stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        timeout=case.run_timeout_s,
        start_new_session=True,  # so that Ctrl-C and kill reach the ranks through the launcher
    )
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    errors = _ERRORS + done.stderr if apart else b""
    return Outcome(seen(done.stdout + errors, directory), code, written(directory))


def by_distrun(
    case: Case, directory: Path, launch: Launch, method: str, *, apart: bool = False
) -> tuple[Outcome, subprocess.CompletedProcess[str]]:
    laid_out(case, directory)
    done = launch(
        *("launch", "--nproc-per-node", 1, "--start-method", method, *case.call),
        cwd=directory,
        env=environment(case),
        stdin=None,
        input=case.stdin,
        timeout_s=case.run_timeout_s,
        capture_output=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
    )
    logs = directory / "runs"
    assert logs.is_dir(), f"{done.stdout}\n{done.stderr}"
    output = (only_run(directory) / "logs" / "node0" / "rank0.log").read_bytes()
    if apart:
        output = output_apart(RunDirectory(only_run(directory)), output)
    # One is ours: it closes gloo's threads, which may abort an exit that left them running.
    output = re.sub(rb"(?<=atexit callbacks: )\d+", lambda m: b"%d" % (int(m[0]) - 1), output)
    return Outcome(seen(output, directory), done.returncode, written(directory)), done


def side_by_side(
    case: Case, directory: Path, launch: Launch
) -> tuple[Outcome, dict[str, tuple[Outcome, subprocess.CompletedProcess[str]]]]:
    """Return what comes of a script by python, and by a cold and a warm launch, by its name."""
    with ThreadPoolExecutor(2) as pool:
        python = pool.submit(by_python, case, directory / "pyth")
        launches = {
            by: pool.submit(by_distrun, case, directory / by, launch, method)
            for by, method in (("cold", "spawn"), ("warm", "forkserver"))
        }
    expected = python.result()
    assert case.prints in expected.output
    assert expected.exit_code == case.exit_code
    return expected, {by: launched.result() for by, launched in launches.items()}


def output_apart(run: RunDirectory, output: bytes) -> bytes:
    """Return what a log holds of stdout, and behind it what it holds of stderr."""
    inode = run.log(0, 0).inode()
    assert inode
    marks = Marks(run.streams(0, 0), inode, rotated=False)
    parts = list(marks.cut(0, output))
    marks.close()
    of = {name: b"".join(p.data for p in parts if p.stream == name) for name in (STDOUT, STDERR)}
    return of[STDOUT] + _ERRORS + of[STDERR]


def seen(output: bytes, directory: Path) -> str:
    text = output.decode("utf-8", "backslashreplace")
    return without_the_launchers_variables(normalised(text, directory))


def difference(expected: Outcome, found: Outcome, by: str) -> str:
    """Return a diff for people, empty if there is none."""

    def lines(outcome: Outcome) -> list[str]:
        parts = [f"exit code {outcome.exit_code}", *outcome.output.splitlines()]
        for name, text in outcome.files.items():
            parts += [f"--- file {name!r}", *text.splitlines()]
        return parts

    if expected == found:
        return ""
    diff = difflib.unified_diff(lines(expected), lines(found), "python", by, lineterm="", n=1)
    return "\n" + ("\n".join(diff) or f"{expected!r}\n{found!r}")
