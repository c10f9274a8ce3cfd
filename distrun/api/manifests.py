"""Makes the job of Kubernetes that a launch asks for, and submits it."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distrun import env
from distrun.api import kubernetes_jobs
from distrun.api.asked import Asked
from distrun.api.pod_script import read_pod_script
from distrun.errors import UsageError
from distrun.plan.model import Program
from distrun.plan.words import launch_words
from distrun.runs import directory, record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers.kube_access import Access
from distrun.schedulers.kubernetes.manifest import SCRIPT_DIR, Manifest
from distrun.schedulers.kubernetes.text import text
from distrun.schedulers.kubernetes.workloads import objects
from distrun.spec import read
from distrun.spec.job import Job
from distrun.spec.kubernetes_values import MAX_JOB_NAME
from distrun.spec.patch import read_patches

Tell = Callable[[str], None]
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SUFFIX = 5
"""`-1a2b`, of a name that is ours."""
_MAX_NODES = 10_000
_STAYS_HERE = ("sync", "bootstrap")


@dataclass(frozen=True)
class KubernetesSubmission:
    """A run that may be submitted; nothing of it exists yet."""

    text: str
    """The objects as a file of YAML, without the values of secrets."""
    objects: Sequence[dict[str, Any]]
    """In the order of creation, the values of secrets in them."""
    job: Job
    record: RunRecord
    """As it will be written, but for the name of the job."""


def prepare_kubernetes(
    asked: Asked,
    *,
    command: Sequence[str] = (),
    only_printed: bool = False,
    tell: Tell = lambda _: None,
) -> KubernetesSubmission:
    """Check a job as far as that is possible without its nodes, and make its objects.

    Args:
        asked: The job.
        command: The command line, for the record and the text.
        only_printed: The name of the job has no digits of its own, so that the text is the same
            again.
        tell: Called with a line about what does not reach the pods.

    Raises:
        UsageError: The job is wrong, or cannot be one of Kubernetes.
        MachineError: The runs directory cannot be used.
    """
    job = asked.job
    _hold_settings(asked)
    asked.hold()
    if not isinstance(job.check, bool):
        tell("the table [tool.distrun.check] stays here: the pods check with its defaults")
    stamp, digits = directory.new_stamp()
    hidden = _secrets(job)
    masked = record.masked_command(command, hidden)
    manifest = _manifest(asked, asked.nproc, hidden, masked, "" if only_printed else digits)
    plan = {"join_timeout_s": job.join_timeout}
    written = asked.record(asked.run_id(stamp, digits), masked, plan=plan)
    return KubernetesSubmission(text(manifest), objects(manifest), job, written)


def submit_kubernetes(submission: KubernetesSubmission) -> tuple[RunDirectory, RunRecord]:
    """Make the run directory, and create the job.

    Returns:
        The run, and its record, which names the job.

    Raises:
        UsageError: The run directory cannot be made, or the kubeconfig cannot be used.
        MachineError: The server refuses an object; then nothing is left of it here and there.
    """
    table = submission.job.kubernetes
    kubeconfig = "" if table.kubeconfig is None else str(table.kubeconfig)
    access = Access(table.context, table.namespace, kubeconfig)
    made = submission.objects
    return kubernetes_jobs.submit(made, access, submission.job.runs_dir, submission.record)


def _hold_settings(asked: Asked) -> None:
    """Refuse what a pod cannot have.

    Raises:
        UsageError: A setting does not fit.
    """
    job, table = asked.job, asked.job.kubernetes
    if job.image is None:
        raise UsageError(
            "--on kubernetes needs --image, which the pods run",
            "an image with distrun and torch, such as the one that docker/Dockerfile makes",
        )
    if job.nodes.max > _MAX_NODES:
        raise UsageError(
            f"--nodes {job.nodes} is above the limit of {_MAX_NODES} pods", f"--nodes {_MAX_NODES}"
        )
    for name in _STAYS_HERE:
        if getattr(job, name):
            raise UsageError(
                f"--{name} does not reach a pod",
                "put the files into the image, or a small script into a --configmap",
            )
    if job.gpus is not None and not job.gpus.startswith("free:"):
        raise UsageError(
            f"--gpus {job.gpus} numbers the GPUs of a machine, and a pod is given some",
            f"--gpus free:{job.gpus.count(',') + 1}",
        )
    if table.configmap and (job.module or job.no_python):
        raise UsageError(
            f"--configmap brings a Python file, and {job.script!r} is none"
            f" ({'--module' if job.module else '--no-python'})",
            "put it into the image, and leave --configmap out",
        )
    if table.kind == "trainjob" and job.nodes.min < job.nodes.max:
        raise UsageError(
            f"--nodes {job.nodes}: a TrainJob has a fixed number of nodes",
            f"--nodes {job.nodes.max}",
        )
    if table.kind == "trainjob" and job.workdir is not None:
        raise UsageError(
            f"--workdir {str(job.workdir)!r}: a TrainJob has that of the image",
            "the WORKDIR of the image, or --kind job",
        )


def _secrets(job: Job) -> dict[str, str]:
    """Return the variables whose values no manifest may show."""
    of_file = read.env_file(job.env_file) if job.env_file else {}
    found = {name: value for name, value in of_file.items() if name not in job.env}
    found |= {name: value for name, value in job.env.items() if env.is_secret(name)}
    for name, value in found.items():
        if not _VARIABLE.fullmatch(name):
            raise UsageError(
                f"the variable {name!r} cannot be in a Secret", "letters, digits, '_', '-', '.'"
            )
        if not _is_unicode(value):
            raise UsageError(f"the value of {name} is not Unicode", "a Secret holds Unicode alone")
    return found


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _manifest(
    asked: Asked, nproc: int | None, hidden: dict[str, str], made_by: Sequence[str], digits: str
) -> Manifest:
    job, table = asked.job, asked.job.kubernetes
    assert job.image is not None
    script = read_pod_script(Path(job.script)) if table.configmap else None
    nodes = job.nodes.max + job.spare
    python = (job.python, "-m", "distrun") if job.python else ("distrun",)
    made = Manifest(
        name=table.job_name or job_name(Program(job.script, module=job.module).name, digits),
        kind=table.kind,
        image=job.image,
        command=(*python, "launch"),
        args=(),
        nodes=nodes,
        ranks=nproc,
        gpus=int(job.gpus.removeprefix("free:")) if job.gpus else 0,
        grace_s=job.grace,
        time_limit_s=job.time_limit,
        join_timeout_s=job.join_timeout,
        retries=table.retries,
        ttl_s=None if table.ttl is None else math.ceil(table.ttl),
        namespace=table.namespace,
        workdir="" if job.workdir is None else str(job.workdir),
        script=script,
        resources=table.resource,
        node_selector=table.node_selector,
        tolerations=table.toleration,
        volumes=table.volume,
        queue=table.queue,
        network_policy=table.network_policy,
        secrets={**({env.DIAL_KEY: secrets.token_hex(32)} if nodes > 1 else {}), **hidden},
        patches=tuple(patch for file in table.patch for patch in read_patches(file)),
        made_by=("distrun", *made_by[1:]) if made_by else (),
    )
    there = f"{SCRIPT_DIR}/{script.name}" if script else job.script
    return replace(made, args=tuple(launch_words(job, asked.sources, made.runs_dir, there)))


def job_name(program: str, digits: str) -> str:
    """Return a short name that Kubernetes takes: `my_Train` -> `my-train-1a2b`.

    Args:
        program: The name of the program.
        digits: What tells its runs apart; "": nothing.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", program.lower())[: MAX_JOB_NAME - _SUFFIX].strip("-")
    if not plain or not plain[0].isalpha():
        plain = f"run-{plain}".strip("-")[: MAX_JOB_NAME - _SUFFIX].strip("-")
    return f"{plain}-{digits}" if digits else plain
