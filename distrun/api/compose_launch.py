"""Makes the Compose project that a launch asks for, and starts it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from distrun import env
from distrun.api.asked import Asked
from distrun.api.manifests import job_name
from distrun.checks.required import require_runs_dir
from distrun.errors import UsageError
from distrun.nodes.project import root_of
from distrun.plan.model import Program
from distrun.plan.words import launch_words
from distrun.runs import directory, known, record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers import container_engine
from distrun.schedulers.compose import PROJECT_DIR, RUNS_DIR, Composed, render
from distrun.spec import read
from distrun.spec.fields import NodeRange
from distrun.spec.job import Job

Tell = Callable[[str], None]
NAME = "compose"
_NOT_HERE = ("sync", "bootstrap", "interface", "workdir")


@dataclass(frozen=True)
class ComposeSubmission:
    """A run that may be started; nothing of it exists yet."""

    composed: Composed
    runs_dir: Path
    record: RunRecord
    """As it will be written, but for the engine."""
    secrets: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Values of variables that the file must not hold."""

    @property
    def text(self) -> str:
        """The Compose file."""
        return render(self.composed)


def prepare_compose(
    asked: Asked,
    *,
    command: Sequence[str] = (),
    only_printed: bool = False,
    tell: Tell = lambda _: None,
) -> ComposeSubmission:
    """Check a job as far as that is possible without its containers, and make its file.

    Args:
        asked: The job.
        command: The command line, for the record and the text.
        only_printed: The name of the project has no digits of its own, so that the text is the
            same again.
        tell: Called with a line about what does not reach the containers.

    Raises:
        UsageError: The job is wrong, or cannot be one of Compose.
        MachineError: The runs directory cannot be used.
    """
    job = asked.job
    _hold_settings(job)
    asked.hold()
    if not isinstance(job.check, bool):
        tell("the table [tool.distrun.check] stays here: the containers check with its defaults")
    of_file = read.env_file(job.env_file) if job.env_file else {}
    hidden = {name: value for name, value in of_file.items() if name not in job.env}
    hidden |= {name: value for name, value in job.env.items() if env.is_secret(name)}
    masked = record.masked_command(command, hidden)
    stamp, digits = directory.new_stamp()
    composed = _composed(asked, tuple(hidden), masked, "" if only_printed else digits)
    written = asked.record(asked.run_id(stamp, digits), masked)
    if composed.count > 1:
        hidden[env.DIAL_KEY] = secrets.token_hex(32)
    return ComposeSubmission(composed, job.runs_dir, written, hidden)


def _hold_settings(job: Job) -> None:
    """Refuse what a container cannot have.

    Raises:
        UsageError: A setting does not fit.
    """
    if job.image is None:
        raise UsageError(
            "--on compose needs --image, which the containers run",
            "`docker build -t distrun -f docker/Dockerfile .` makes one: --image distrun",
        )
    for name in _NOT_HERE:
        if getattr(job, name):
            raise UsageError(
                f"--{name} has no meaning for containers: the project is mounted in them",
                f"leave --{name} out",
            )
    if job.gpus is not None:
        raise UsageError(
            f"--gpus {job.gpus}: the containers of one machine would share its GPUs",
            "`docker run --gpus all IMAGE distrun launch …` trains on the GPUs of one machine",
        )


def _composed(asked: Asked, hidden: tuple[str, ...], made_by: list[str], digits: str) -> Composed:
    job = asked.job
    assert job.image is not None
    root, workdir, script = _mounted(job)
    python = (job.python, "-m", "distrun") if job.python else ("distrun",)
    words = launch_words(job, asked.sources, RUNS_DIR, script)
    return Composed(
        name=job_name(Program(job.script, module=job.module).name, digits),
        image=job.image,
        command=(*python, "launch", *words),
        nodes=str(NodeRange(job.nodes.min + job.spare, job.nodes.max + job.spare)),
        count=job.nodes.max + job.spare,
        project_dir=str(root),
        workdir=str(workdir),
        user=f"{os.getuid()}:0",
        grace_s=job.grace,
        secrets=hidden,
        made_by=("distrun", *made_by[1:]) if made_by else (),
    )


def _mounted(job: Job) -> tuple[Path, PurePosixPath, str]:
    """Return the project's directory, and the working directory and the script there.

    The project is the work tree of git, else the script's directory. If the current directory is
    in it, the container has the same one, so that relative paths lead to the same files.
    """
    here = Path.cwd()
    is_file = not (job.module or job.no_python)
    script = Path(os.path.abspath(job.script))  # noqa: PTH100 - keeps links
    root = root_of(script.parent if is_file else here)
    inside = PurePosixPath(PROJECT_DIR)
    workdir = inside / here.relative_to(root) if here.is_relative_to(root) else inside
    if not is_file:
        return root, workdir, job.script
    there = inside / script.relative_to(root)
    return root, workdir, str(there.relative_to(workdir) if workdir in there.parents else there)


def start_compose(submission: ComposeSubmission) -> tuple[RunDirectory, RunRecord]:
    """Make the run directory, and start the containers.

    Returns:
        The run and its record, whose `job` says where the containers are.

    Raises:
        UsageError: The run directory cannot be made.
        MachineError: There is no engine or no image, or the containers cannot be started; then
            nothing is left of them.
    """
    composed, runs_dir = submission.composed, submission.runs_dir
    found = container_engine.engine()
    found.require_image(composed.image)
    try:
        run = directory.create(runs_dir, submission.record.run_id)
    except OSError as error:
        require_runs_dir(runs_dir, error.strerror or str(error))
        raise
    file = str(run.compose_file)
    where = {"on": NAME, "engine": found.name, "project": composed.name, "file": file}
    written = replace(submission.record, job={**where, "nodes": composed.count})
    try:
        run.compose_file.replace_text(submission.text)
        record.write(run, written)
        found.up(file, composed.name, submission.secrets)
    except BaseException:  # Ctrl-C too: nothing is left behind
        found.down(file, composed.name, {env.DIAL_KEY: "-"})
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    known.add(runs_dir)
    return run, written
