"""Prepares a launch: reads the machines, checks the job against them, and plans."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from distrun.api import in_job, recipes
from distrun.api.in_job import Submitted
from distrun.checks.required import (
    require_port,
    require_runs_dir,
    require_torch,
    require_tracker,
)
from distrun.checks.script import check_script
from distrun.errors import (
    DistrunError,
    ExitCode,
    MachineError,
    UsageError,
    require_supported_system,
)
from distrun.frames import is_distrun
from distrun.nodes.handed import Kept
from distrun.nodes.project import read_project
from distrun.plan.layout import make_plan, run_name
from distrun.plan.model import LaunchPlan, Program
from distrun.plan.site import Site
from distrun.probe.host import port_problem
from distrun.probe.reading import Unread
from distrun.probe.runs_disk import runs_dir_problem
from distrun.probe.script import Script, read_script
from distrun.probe.snapshot import Node
from distrun.runs import directory
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers import foreign, site
from distrun.schedulers.place import OwnNode
from distrun.schedulers.registry import name_of
from distrun.spec import read
from distrun.spec.job import Header, Job

if TYPE_CHECKING:
    from distrun.api.dialed import Head

Tell = Callable[[str], None]

_OF_OTHER_MACHINES = ("python", "workdir", "sync", "bootstrap", "interface")
"""Settings without a meaning where all nodes are emulated."""


class Continued(Protocol):
    """A run that a launch goes on with."""

    @property
    def run(self) -> RunDirectory:
        """Its directory."""

    def record_of(self, new: RunRecord) -> RunRecord:
        """Return the record of the attempt that starts now."""


@dataclass(frozen=True)
class Prepared:
    """A job that has passed all checks and can be started."""

    job: Job
    plan: LaunchPlan
    site: Site
    submitted: Submitted | None = None
    """The run that it goes on with, if it was submitted and this is the launch in its job."""
    prediction: Mapping[str, float] = field(default_factory=dict)
    """What is expected of it, if that was asked: for its record."""
    resumed: Continued | None = None
    """The run that it is the next attempt of, if it is."""
    head: Head | None = None
    """Ends the nodes that have dialed in, if this is node 0 of such a job."""
    agents: Kept = field(default_factory=Kept)
    """Connections to agents that have been started on other machines."""


def prepare(
    job: Job,
    sources: Mapping[str, str],
    header: Header,
    *,
    ask: bool = True,
    by_platform: bool = False,
    tell: Tell = lambda _: None,
) -> Prepared:
    """Read the machines, check the job against them, and plan.

    Args:
        job: The job.
        sources: The source of each of its fields that is not a default.
        header: The recipe's own table.
        ask: Reach other machines; else they are taken to be like this one.
        by_platform: A platform may have started the same command on other nodes: be one of them.
        tell: Called with a line about each machine that is reached.

    Raises:
        UsageError: The job is wrong.
        MachineError: A machine lacks something, or cannot be reached.
    """
    require_supported_system(sys.platform)
    _require_no_outer_launch(os.environ)
    job = read.with_hosts(job)
    name = name_of(job)
    if sources.get("image") in ("flag", "argument"):
        raise UsageError(
            f"--image is what containers run, and a launch on {name} starts none",
            "add --on kubernetes or --on compose",
        )
    script = require_script(job)
    require_usable_runs_dir(job.runs_dir)
    secrets = read.env_file(job.env_file) if job.env_file else {}
    if ask and job.on == "slurm" and not os.environ.get("SLURM_JOB_ID"):
        raise UsageError(
            "--on slurm: there is no Slurm job around",
            "`distrun launch --on slurm` submits one; for any other command `salloc --nodes N`,"
            " written before it, asks for one",
        )
    own = None
    if by_platform:
        job, sources, own = foreign.applied(job, sources, os.environ)

    def planned(found: Site, agents: Kept) -> Prepared:
        try:
            made = _planned(job, sources, header, script, found, secrets, tell)
        except BaseException:  # Ctrl-C too: nothing may be left there
            agents.close()
            raise
        return replace(made, agents=agents)

    if own is None or not own.by_head or not ask:
        return planned(*_site(job, script, own, ask=ask, tell=tell))
    return _by_head(own, job, script, planned, tell)


def _by_head(
    own: OwnNode,
    job: Job,
    script: Script,
    planned: Callable[[Site, Kept], Prepared],
    tell: Tell,
) -> Prepared:
    """Prepare a job whose nodes dial in to this one, node 0."""
    if own.rank > 0:
        raise UsageError(
            f"this is node {own.rank} of {own.count}, and node 0 supervises all of them",
            "`distrun launch` on this node serves it; the Python API works on node 0",
        )
    from distrun.api.dialed import Head  # few jobs have one, and each start would read it

    head = Head(own, job, tell)
    try:
        there = site.asked(job, script, workdir_of(job), tell, nodes_of=head.nodes)
        return replace(planned(*there), head=head)
    except BaseException as error:  # Ctrl-C too: the other nodes wait for the head's end
        head.end(error.exit_code if isinstance(error, DistrunError) else ExitCode.INTERNAL)
        raise


def _planned(
    job: Job,
    sources: Mapping[str, str],
    header: Header,
    script: Script,
    found: Site,
    secrets: Mapping[str, str],
    tell: Tell,
) -> Prepared:
    """Check the job against its machines, and plan."""
    submitted = in_job.submitted()
    if found.emulated:
        for name in _OF_OTHER_MACHINES:
            if sources.get(name) in ("flag", "argument"):
                tell(f"--{name} has no effect: all nodes are on this machine")
    for machine in found.machines:
        require_torch(machine.node.software.torch, machine.host if machine.command else "")
    if found.emulated:
        require_tracker(job.track)
    if job.master_port is not None and found.emulated:
        require_port(job.master_port, port_problem(job.master_port))
    plan = make_plan(
        job,
        sources,
        header,
        found,
        run_id=submitted.run.run_id
        if submitted
        else run_name(Program(job.script, module=job.module).name, *directory.new_stamp()),
        secret_env=secrets,
        workdir=str(workdir_of(job)),
        # If the user names the start method, a mere suspicion is ignored.
        cold_reason=script.cold_reason or ("" if "start_method" in sources else script.suspicion),
    )
    if job.check is not False and found.asked:
        from distrun.api.before_launch import checked  # not read with --no-check

        plan = checked(job, plan, found)
    return Prepared(job, plan, found, submitted)


def require_script(job: Job) -> Script:
    """Read the script of a job.

    Raises:
        UsageError: No rank could run it.
    """
    script = read_script(job.script, module=job.module, no_python=job.no_python)
    if job.module and job.no_python:
        raise UsageError("-m and --no-python exclude each other", "leave one of them out")
    check_script(job.script, script, module=job.module, recipes=recipes.NAMES)
    return script


def _require_no_outer_launch(environ: Mapping[str, str]) -> None:
    """Refuse a launch by a rank: each rank would start the whole job once more.

    A world of one may launch: it is how a job starts another. Kubernetes operators set WORLD_SIZE
    and RANK too, but no TORCHELASTIC_RUN_ID.
    """
    world_size, run_id = environ.get("WORLD_SIZE", "1"), environ.get("TORCHELASTIC_RUN_ID")
    if run_id is not None and world_size != "1":
        raise UsageError(
            f"this is rank {environ.get('RANK', '?')} of {world_size} of a launch that runs already"
            f" (TORCHELASTIC_RUN_ID={run_id}); each rank would start the whole job again",
            "`distrun launch` takes the place of torchrun: start it once, on no rank;"
            " `env -u TORCHELASTIC_RUN_ID` if this is meant",
        )


def workdir_of(job: Job) -> Path:
    """Return the working directory on other machines: by default the path of this one's."""
    return Path(os.path.abspath(job.workdir or "."))  # noqa: PTH100 - keeps links, as the shell does


def _site(
    job: Job, script: Script, own: OwnNode | None, *, ask: bool, tell: Tell
) -> tuple[Site, Kept]:
    if own is not None:
        for line in () if ask else own.lines():
            tell(line)
        return site.own_node(own, job, tell, starts=ask), Kept()
    if name_of(job) == "local":
        return site.here(job), Kept()
    if not ask:
        return site.unasked(job), Kept()
    workdir = workdir_of(job)
    project = None
    if job.sync and not (script.path and is_distrun(str(script.path))):
        # A module or a program may be anywhere: the project is the current directory's.
        path = script.path if not (job.module or job.no_python) else None
        project = read_project(path, job.workdir and workdir, job.runs_dir)
    return site.asked(job, script, workdir, tell, project, require=_require_torch_there)


def _require_torch_there(node: Node) -> None:
    require_torch(node.software.torch, node.name)


def require_usable_runs_dir(runs_dir: Path) -> None:
    """Refuse a directory that runs cannot be recorded in.

    Raises:
        UsageError: It, or the place where it would be made, is not writable.
        MachineError: Its file system does not answer.
    """
    try:
        require_runs_dir(runs_dir, runs_dir_problem(runs_dir))
    except Unread as silence:  # a network disk may hang for ever
        raise MachineError(
            f"--runs-dir {str(runs_dir)!r} cannot be used: {silence}",
            "--runs-dir names another place",
        ) from None
