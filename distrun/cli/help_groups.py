"""Commands whose `--help` has its options in groups.

Typer has this only with rich, whose import costs 50 ms on every command.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from distrun.cli.commands import Commands
from distrun.errors import UsageError

Groups = Mapping[str, Sequence[str]]
"""Heading -> the names of the parameters below it."""

LAUNCH: Groups = {
    "What runs": ("script", "args", "module", "no_python", "env", "env_file", "config"),
    "Where": (
        *("nodes", "nproc_per_node", "strategy", "gpus", "hosts", "hostfile", "on", "image"),
        *("python", "workdir", "sync", "bootstrap", "interface", "master_port"),
    ),
    "How": ("start_method", "max_restarts", "spare", "regrow", "resume", "detach"),
    "Slurm": (*("partition", "account", "qos", "constraint", "time", "requeue", "sbatch"),),
    "Kubernetes": (
        *("kind", "job_name", "namespace", "context", "kubeconfig", "configmap", "resource"),
        *("node_selector", "toleration", "volume", "queue", "retries", "ttl", "network_policy"),
        "patch",
    ),
    "Limits": (
        *("time_limit", "hang_timeout", "on_hang", "grace", "linger", "join_timeout"),
        "straggler_notice",
    ),
    "Checks before the start": (*("check", "strict", "dry_run", "explain", "estimate", "force"),),
    "Output": (
        *("quiet", "only_rank", "prefix", "fold", "debug_rank", "json"),
        *("runs_dir", "log_max_mib", "metrics_every", "report", "track"),
    ),
}
CHECK: Groups = {
    "Which machines": (*("hosts", "hostfile", "on", "python", "bootstrap", "recorded", "files"),),
    "The job that they are judged for": (
        *("nodes", "nproc_per_node", "gpus", "master_port", "runs_dir", "config"),
    ),
    "What is judged": ("deep", "ignore", "strict"),
    "Output": ("verbose", "json", "report", "output", "save", "watch", "explain"),
}
BENCH: Groups = {
    "What is measured": (
        *("op", "begin", "end", "factor", "sizes", "dtype", "redop", "root", "place"),
    ),
    "How": ("iterations", "warmup", "mode", "check", "overlap", "budget", "backend", "timeout"),
    "Output": ("json", "form", "output", "baseline", "tolerance"),
    "The job, as for launch": (
        *("nodes", "nproc_per_node", "gpus", "env", "env_file", "config", "runs_dir", "hosts"),
        *("hostfile", "on", "python", "workdir", "bootstrap", "interface"),
        *("master_port", "time_limit", "grace", "join_timeout", "start_method", "dry_run"),
    ),
}


def _write(command: Any, groups: Groups, ctx: Any, formatter: Any) -> None:
    """Write the help of a command's parameters; those in no group come last."""
    records = {param.name: param.get_help_record(ctx) for param in command.get_params(ctx)}
    grouped = {heading: [records.pop(n, None) for n in names] for heading, names in groups.items()}
    for heading, found in {**grouped, "Other options": [*records.values()]}.items():
        if shown := [record for record in found if record is not None]:
            with formatter.section(heading):
                formatter.write_dl(shown)


class LaunchHelp(TyperCommand):
    """`distrun launch`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in their groups."""
        _write(self, LAUNCH, ctx, formatter)


class CheckHelp(TyperCommand):
    """`distrun check`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in their groups."""
        _write(self, CHECK, ctx, formatter)


class BenchHelp(Commands):
    """`distrun bench-comm`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in their groups, and the subcommands."""
        _write(self, BENCH, ctx, formatter)
        self.format_commands(ctx, formatter)

    def unknown(self, ctx: Any, args: list[str]) -> UsageError:
        """For a file name, suggest -o."""
        if Path(args[0]).suffix:
            hint = f"-o {shlex.quote(args[0])}"
            return UsageError(f"{args[0]!r} is no command; a file to write is named by -o", hint)
        return super().unknown(ctx, args)
