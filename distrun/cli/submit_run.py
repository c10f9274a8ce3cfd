"""`distrun launch --on slurm`, `kubernetes` or `compose`: the launch that submits a job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from distrun.cli.follow_job import JobFollower, Shown, tell_how_to_go_on
from distrun.env import is_secret
from distrun.errors import UsageError

if TYPE_CHECKING:
    from distrun.api.asked import Asked
    from distrun.api.runs import RunDirectory, RunRecord

SLURM_FLAGS = ("partition", "account", "qos", "constraint", "time", "sbatch", "requeue")
_STAYS_HERE = ("script", "args", "nodes", "check", "report", *SLURM_FLAGS)


def slurm_table(flags: dict[str, Any]) -> list[str]:
    """Move the flags for Slurm into their table; return those that were given, as typed.

    Raises:
        UsageError: A value of --sbatch is not KEY=VALUE.
    """
    given = {name: flags.pop(name) for name in SLURM_FLAGS if name in flags}
    if "sbatch" in given:
        given["sbatch"] = dict(_option(pair) for pair in given["sbatch"])
    if given:
        flags["slurm"] = given
    return [f"--{name}" for name in given]


def _option(pair: str) -> tuple[str, str]:
    key, _, value = pair.partition("=")
    if not key or key.startswith("-"):
        raise UsageError(
            f"--sbatch {pair!r} is not KEY=VALUE",
            "the long name of an option of sbatch, without dashes: --sbatch reservation=maint",
        )
    return key, value


def refuse_slurm_flags(given: Sequence[str], job_id: str) -> None:
    """Refuse flags for Slurm in a launch that submits nothing.

    Raises:
        UsageError: There is one.
    """
    if given and job_id:
        names = " and ".join(given)
        raise UsageError(
            f"{names}: this launch is inside Slurm job {job_id}, and uses its nodes",
            f"leave {names} out",
        )
    if given:
        raise UsageError(f"{' and '.join(given)} asks Slurm for a job", "add --on slurm")


def words_in_job(given: Mapping[str, Any], config: object = None) -> list[str]:
    """Return the arguments of the launch inside the job: those of this one that matter there.

    Nodes are those that the job has got. Values of secret variables are left out: they are in
    the environment of the job.

    Args:
        given: The parameters of the command, without those of its output.
        config: What --config names.
    """
    words = [f"--config={config}"] if config is not None else []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "on":
            value = [each for each in value or () if "=" in each]  # where is known there
        if name in _STAYS_HERE or value in (None, False, []):
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            kept = [each for each in value if not is_secret(each.partition("=")[0])]
            words += [f"{flag}={each}" for each in kept]
        else:
            words.append(f"{flag}={value}")
    words += [f"--no-{name}" for name in ("check", "report") if not given[name]]
    return [*words, given["script"], *(given["args"] or ())]


class Ready(NamedTuple):
    """A job that may be submitted."""

    text: str
    """What --dry-run prints."""
    submit: Callable[[], tuple[RunDirectory, RunRecord]]


def _for_slurm(asked: Asked, words: Sequence[str], only_printed: bool) -> Ready:
    from distrun.api.submit import prepare_submission, submit

    submission = prepare_submission(asked, words, command=sys.argv)
    return Ready(submission.script, lambda: submit(submission))


def _for_kubernetes(asked: Asked, words: Sequence[str], only_printed: bool) -> Ready:
    from distrun.api.manifests import prepare_kubernetes, submit_kubernetes
    from distrun.cli.screen.console import say

    made = prepare_kubernetes(asked, command=sys.argv, only_printed=only_printed, tell=say)
    return Ready(made.text, lambda: submit_kubernetes(made))


def _for_compose(asked: Asked, words: Sequence[str], only_printed: bool) -> Ready:
    from distrun.api.compose_launch import prepare_compose, start_compose
    from distrun.cli.screen.console import say

    made = prepare_compose(asked, command=sys.argv, only_printed=only_printed, tell=say)
    return Ready(made.text, lambda: start_compose(made))


_READY: Mapping[str, Callable[[Asked, Sequence[str], bool], Ready]] = {
    "slurm": _for_slurm,
    "kubernetes": _for_kubernetes,
    "compose": _for_compose,
}


def submit_run(
    asked: Asked, words: Sequence[str], shown: Shown, *, only_printed: bool, detach: bool
) -> int:
    """Submit a job, and follow it to its end; return the exit code.

    Args:
        asked: The job.
        words: See `words_in_job`.
        shown: What the console shows of it.
        only_printed: Print the job and do nothing.
        detach: Return when it is submitted.
    """
    from distrun.cli.screen.console import say

    ready = _READY[asked.submitted_to](asked, words, only_printed)
    if only_printed:
        typer.echo(ready.text, nl=False)
        return 0
    run, record = ready.submit()
    if not (shown.quiet or shown.json):
        job = record.job_id or record.job.get("name") or record.job.get("project")
        say(f"submitted as job {job}: {run.run_id}")
    if detach:
        tell_how_to_go_on(run)
        return 0
    return JobFollower(run, record, shown).to_end()
