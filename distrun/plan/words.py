"""The command line of a launch in a pod: the job's settings as flags, wherever they came from.

The files of this machine, its config file among them, are not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distrun.env import is_secret
from distrun.spec.job import Job

_VALUES = (
    *("nproc_per_node", "strategy", "gpus", "max_restarts", "spare", "interface", "master_port"),
    *("start_method", "on_hang", "log_max_mib", "track"),
)
_TIMES = (
    *("time_limit", "linger", "join_timeout", "straggler_notice", "hang_timeout"),
    "metrics_every",
)
_OWN = "recipe header"
"""What the script says of itself, it says there too."""


def launch_words(job: Job, sources: Mapping[str, str], runs_dir: str, script: str) -> list[str]:
    """Return the arguments of `distrun launch` that make the same plan without our files.

    Args:
        job: The job.
        sources: The source of each of its fields that is not a default.
        runs_dir: Where runs are recorded there.
        script: The path of the script there.
    """
    flags = [f"--nodes={job.nodes}"] if job.nodes.max > 1 else []
    flags += _chosen(job, sources)
    flags.append(f"--grace={_seconds(job.grace)}")  # an image may have another default
    flags += [f"--env={name}={value}" for name, value in job.env.items() if not is_secret(name)]
    flags += [f"--runs-dir={runs_dir}", "--json"]
    return [*flags, f"./{script}" if script.startswith("-") else script, *job.args]


def _chosen(job: Job, sources: Mapping[str, str]) -> Iterator[str]:
    for name in (*_VALUES, *_TIMES):
        value: Any = getattr(job, name)
        if value is None or sources.get(name, _OWN) == _OWN:
            continue
        yield f"--{name.replace('_', '-')}={_seconds(value) if name in _TIMES else value}"
    for name in ("module", "no_python", "strict", "regrow"):
        if getattr(job, name):
            yield f"--{name.replace('_', '-')}"
    yield from (f"--on={name}={action}" for name, action in job.on_failure.items())
    if job.check is False:
        yield "--no-check"


def _seconds(value: float) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") + "s"
