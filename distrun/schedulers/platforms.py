"""The platforms that start one command on every node, as data: the names of their variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distrun.errors import UsageError


@dataclass(frozen=True)
class Platform:
    """The names of one platform's variables. Of several names, the first that is set counts."""

    name: str
    source: str
    """Where they are documented."""
    count: str
    """Number of nodes; "": --nodes says it."""
    rank: str
    head: tuple[str, ...]
    """The address of node 0, or ADDRESS:PORT."""
    port: tuple[str, ...] = ()
    addresses: str = ""
    """The addresses of all nodes, a line each, the first is the head's."""
    run_id: tuple[str, ...] = ()
    """The same on all nodes, and another one for another job."""
    started_here: str = ""
    """How often the platform has started the command on this node."""
    cure: str = ""
    """What to do if the head is not named, or the command runs more than once on a node."""


PLATFORMS = (
    Platform(
        "distrun's variables",
        "docs/clusters.md",
        count="DISTRUN_NNODES",
        rank="DISTRUN_NODE_RANK",
        head=("DISTRUN_HEAD",),
        cure="DISTRUN_HEAD is the name or address of node 0",
    ),
    Platform(  # Kubeflow's TrainJob and PyTorchJob, and whoever sets torchrun's own variables
        "torchrun's variables (Kubeflow)",
        "https://www.kubeflow.org/docs/components/trainer/user-guides/pytorch/",
        count="PET_NNODES",
        rank="PET_NODE_RANK",
        head=("PET_MASTER_ADDR", "PET_RDZV_ENDPOINT"),
        port=("PET_MASTER_PORT",),
        run_id=("PET_RDZV_ID",),
        cure="the platform sets it to the address of node 0",
    ),
    Platform(
        "SkyPilot",
        "https://docs.skypilot.co/en/latest/running-jobs/environment-variables.html",
        count="SKYPILOT_NUM_NODES",
        rank="SKYPILOT_NODE_RANK",
        head=(),
        addresses="SKYPILOT_NODE_IPS",
        run_id=("SKYPILOT_TASK_ID",),
    ),
    Platform(
        "dstack",
        "https://dstack.ai/docs/reference/environment-variables",
        count="DSTACK_NODES_NUM",
        rank="DSTACK_NODE_RANK",
        head=("DSTACK_MASTER_NODE_IP",),
        addresses="DSTACK_NODES_IPS",
        run_id=("DSTACK_RUN_ID", "DSTACK_RUN_NAME"),
    ),
    Platform(
        "Open MPI",
        "https://docs.open-mpi.org/en/v5.0.x/tuning-apps/environment-var.html",
        count="OMPI_COMM_WORLD_SIZE",
        rank="OMPI_COMM_WORLD_RANK",
        head=("MASTER_ADDR",),
        port=("MASTER_PORT",),
        run_id=("PMIX_NAMESPACE",),
        started_here="OMPI_COMM_WORLD_LOCAL_SIZE",
        cure="mpirun --map-by ppr:1:node -x MASTER_ADDR=ADDRESS distrun launch …",
    ),
    Platform(  # pod 0 has the hostname JOB-0; a headless service makes it resolve
        "an Indexed Job",
        "https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/",
        count="",
        rank="JOB_COMPLETION_INDEX",
        head=("MASTER_ADDR",),
        port=("MASTER_PORT",),
        cure="set MASTER_ADDR in the pod template to the name of pod 0, such as JOB-0.SERVICE",
    ),
)


def first_of(names: Sequence[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the value and the name of the first variable that is set, else "" twice."""
    for name in names:
        if value := environ.get(name, "").strip():
            return value, name
    return "", ""


def number(name: str, value: str, least: int, most: int, what: str = "a number") -> int:
    """Return a variable's value as a number.

    Raises:
        UsageError: It is none, or outside of its bounds.
    """
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or not least <= int(value) <= most:
        raise UsageError(
            f"{name}={value!r} is not {what}",
            f"it has to be from {least} to {most}; --on local ignores the platform's variables",
        )
    return int(value)


def host_and_port(value: str) -> tuple[str, str]:
    """Return host and port of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `IPV6`."""
    if bracketed := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", value):
        return bracketed[1], bracketed[2] or ""
    host, colon, port = value.rpartition(":")
    return (host, port) if colon and ":" not in host else (value, "")
