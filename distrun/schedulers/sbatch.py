"""The sbatch script of a job: whole nodes, one process on the first of them, and its log.

`--signal=B:…` reaches the batch shell alone (sbatch(1)). The script therefore ends with `exec`:
the process that Slurm warns is the launcher itself.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import distrun
from distrun.errors import UsageError

_VALUE_LIMIT_NBYTES = 1000
"""Slurm 22.05 refuses names and comments of more than 1024 bytes."""
_WARN_LIMIT_S = 65535
_DAY_MIN = 24 * 60
_PLAIN = re.compile(r"[\w./:,=@%+\[\]*&|()-]+", re.ASCII)
_KEY = re.compile(r"[a-z][a-z0-9-]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_FLAG = {
    "nodes": "--nodes",
    "time": "--time",
    "partition": "--partition",
    "account": "--account",
    "qos": "--qos",
    "constraint": "--constraint",
    "requeue": "--requeue",
    "no-requeue": "--requeue",
    "chdir": "--workdir",
    "export": "--env",
    "export-file": "--env-file",
    "get-user-env": "--env",
    "ntasks": "--nproc-per-node",
    "ntasks-per-node": "--nproc-per-node",
    "ntasks-per-core": "--nproc-per-node",
    "ntasks-per-socket": "--nproc-per-node",
    "ntasks-per-gpu": "--nproc-per-node",
    "test-only": "--dry-run",
    "wait": "--detach",
}
_NOT_FOR_A_RUN = {
    "array": "a job array would start the run several times: launch each run by itself",
    "clusters": "run distrun on a machine of that cluster",
    "wrap": "the script after the options is what runs",
    "output": "the log of the batch job is in the run directory",
    "error": "the log of the batch job is in the run directory",
    "open-mode": "the log of a requeued job is continued",
    "signal": "distrun sets the signal that it handles",
    "parsable": "distrun reads what sbatch prints",
    "quiet": "distrun reads what sbatch prints",
    "help": "`man sbatch` lists the options",
    "usage": "`man sbatch` lists the options",
    "version": "`sbatch --version` prints it",
}
_STEPS_GET_ALL = "export SLURM_EXPORT_ENV=ALL  # else srun would pass on only what --export names"
_REPLACED_BY = {
    "mem": {"mem", "mem-per-cpu", "mem-per-gpu"},
    "exclusive": {"exclusive", "oversubscribe"},
}
"""Our option -> the options of the user that take its place, if other than itself."""


@dataclass(frozen=True)
class Batch:
    """A run as a batch job."""

    name: str
    command: tuple[str, ...]
    """What runs in the job, on its first node; its first word is an absolute path."""
    workdir: str
    output: str
    """The log of the batch job: an absolute path, taken literally (no `%j`)."""
    nodes: int = 1
    max_nodes: int | None = None
    """More than `nodes`: Slurm gives as many as it can; None: `nodes`."""
    time_limit_s: int | None = None
    """None: the limit of the partition."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    """What to request of each node; both None: whole nodes."""
    requeue: bool = False
    """Whether Slurm may start the job again: after preemption, a lost node, `scontrol requeue`."""
    warn_s: int = 90
    """When SIGUSR2 comes, before the time limit (Slurm: up to 60 s earlier); 0: never."""
    options: tuple[tuple[str, str], ...] = ()
    """Other options of sbatch, as `--sbatch KEY=VALUE` gives them; "": an option without value."""
    environ: tuple[str, ...] | None = None
    """Variables of this environment that the job gets; None: all of them, as sbatch does.
    With a list, Slurm reads the login environment on the node too (sbatch(1), --export)."""
    variables: tuple[tuple[str, str], ...] = ()
    """Variables that the script sets; they are no secrets."""
    made_by: tuple[str, ...] = ()
    """The command line that is named in the script; secrets are masked by the caller."""


def render(batch: Batch) -> str:
    """Return the script.

    Raises:
        UsageError: A value cannot stand in a #SBATCH line, or an option does not fit a run.
    """
    for key, _ in batch.options:
        _require_usable(key)
    taken = {key for key, _ in batch.options}
    ours = [
        _directive(key, value)
        for key, value in _directives(batch)
        if not taken & _REPLACED_BY.get(key, {key})
    ]
    lines = [
        "#!/bin/bash",
        f"# Written by distrun {distrun.__version__}{_made_by(batch.made_by)}",
        *ours,
        *(_directive(key, value) for key, value in batch.options),
        "",
        "set -eu",
        *([] if batch.environ is None else [_STEPS_GET_ALL]),
        *(f"export {_variable(name)}={_word(value)}" for name, value in batch.variables),
        f"cd -- {_word(_absolute('the working directory', batch.workdir))} || exit 3",
        "# exec: Slurm's warning signal reaches this process alone",
        "exec " + " ".join(map(_word, batch.command)),
    ]
    return "\n".join(lines) + "\n"


def _directives(batch: Batch) -> Iterator[tuple[str, str]]:
    """Yield our options of sbatch with their values, in the order of the script."""
    yield "job-name", batch.name
    # Slurm reads % as the start of a pattern.
    yield "output", _absolute("the log", batch.output).replace("%", "%%")
    yield "open-mode", "append"  # a requeued job writes on
    for key in ("partition", "account", "qos", "constraint"):
        if value := getattr(batch, key):
            yield key, value
    yield "nodes", f"{batch.nodes}-{batch.max_nodes}" if batch.max_nodes else str(batch.nodes)
    yield "ntasks-per-node", "1"
    yield from _share(batch)
    if batch.time_limit_s is not None:
        yield "time", _clock(batch.time_limit_s)
    if batch.warn_s:
        yield "signal", f"B:USR2@{_warning(batch)}"
    yield ("requeue" if batch.requeue else "no-requeue"), ""
    if batch.environ is None:
        yield "export", "ALL"
    else:
        yield "export", ",".join(map(_variable, batch.environ)) or "NONE"


def _share(batch: Batch) -> Iterator[tuple[str, str]]:
    """Yield what is requested of each node; `--nodes` alone would mean one core of each."""
    if batch.gpus_per_node is None and batch.cpus_per_task is None:
        yield "exclusive", ""
        yield "mem", "0"
    if batch.gpus_per_node is not None:
        yield "gpus-per-node", str(batch.gpus_per_node)
    if batch.cpus_per_task is not None:
        yield "cpus-per-task", str(batch.cpus_per_task)


def _clock(seconds: int) -> str:
    """Return a time limit as D-HH:MM:00; Slurm counts whole minutes and rounds up."""
    minutes = max(1, -(-seconds // 60))
    days, minutes = divmod(minutes, _DAY_MIN)
    return (f"{days}-" if days else "") + f"{minutes // 60:02}:{minutes % 60:02}:00"


def _warning(batch: Batch) -> int:
    limit_s = batch.time_limit_s
    if batch.warn_s > _WARN_LIMIT_S:
        raise UsageError(
            f"the warning {batch.warn_s} s before the time limit is above Slurm's limit of"
            f" {_WARN_LIMIT_S} s",
            "warn later",
        )
    if limit_s is not None and batch.warn_s >= limit_s:
        raise UsageError(
            f"the time limit of {limit_s} s leaves no time before the warning, which comes"
            f" {batch.warn_s} s before it",
            f"--time of more than {batch.warn_s + 60} s",
        )
    return batch.warn_s


def _require_usable(key: str) -> None:
    """Refuse an option that is not one, or that a run cannot have.

    Raises:
        UsageError: The option, and what to use instead. sbatch takes an abbreviation for its
            option (getopt_long(3)), so an abbreviation is refused too.
    """
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"--sbatch: {key!r} is not the name of an option of sbatch",
            "--sbatch KEY=VALUE takes the long name without dashes: --sbatch reservation=maint",
        )
    for name, flag in _OWN_FLAG.items():
        if name.startswith(key):
            raise UsageError(f"--sbatch {key}: distrun sets {name} itself", f"use {flag}")
    for name, instead in _NOT_FOR_A_RUN.items():
        if name.startswith(key):
            raise UsageError(f"--sbatch {key}: a run cannot have {name}", instead)


def _directive(key: str, value: str) -> str:
    """Return a #SBATCH line.

    No shell reads it: sbatch takes a backslash for an escape everywhere, also within single
    quotes, and # outside of quotes for a comment (tried on Slurm 22.05).

    Raises:
        UsageError: The value has a control character, or is too long.
    """
    if not value:
        return f"#SBATCH --{key}"
    if any(unicodedata.category(char) == "Cc" for char in value):
        raise UsageError(
            f"{key} {value!r} has a control character, which an sbatch script cannot hold",
            "leave it out",
        )
    nbytes = len(value.encode("utf-8", "surrogateescape"))
    if nbytes > _VALUE_LIMIT_NBYTES:
        raise UsageError(
            f"{key} has {nbytes} bytes; the limit of a value is {_VALUE_LIMIT_NBYTES} bytes",
            f"it begins {value[:40]!r}",
        )
    if not _PLAIN.fullmatch(value):
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"#SBATCH --{key}={value}"


def _absolute(what: str, path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{what} {path!r} is not an absolute path", "write it from / on")
    return path


def _variable(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a variable", "letters, digits, _")
    return name


def _word(text: str) -> str:
    r"""Quote a word for bash; control characters as `$'\n'`: sbatch refuses "\r\n" in a script."""
    return shlex.quote(text) if text.isprintable() else "$'" + _escaped(text, "\\'") + "'"


def _made_by(command: tuple[str, ...]) -> str:
    return ": " + _escaped(shlex.join(command)) if command else ""


def _escaped(text: str, also: str = "") -> str:
    """Escape what is not printable, as bash reads it, so that the text is one line."""

    def one(char: str) -> str:
        if char.isprintable():
            return "\\" + char if char in also else char
        return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))

    return "".join(map(one, text))
