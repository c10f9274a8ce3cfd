"""Platforms that start the same command on every node: what their variables say of this node.

No machine can be reached from here. With the key of the run the others dial in to node 0. Without
it each node runs its own part of one static world, as it would with torchrun.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from distrun.errors import UsageError
from distrun.nodes.dial.key import has_key
from distrun.schedulers.place import OwnNode
from distrun.schedulers.platforms import PLATFORMS, Platform, first_of, host_and_port, number
from distrun.spec.fields import NodeRange
from distrun.spec.job import Job

_TORCHRUNS_PORT = 29500
_MAX_NODES = 10_000
_WITH_KEY = "DISTRUN_DIAL_KEY, with which the nodes dial in to node 0"
_NPROC = "PET_NPROC_PER_NODE"
"""torchrun reads it on any machine."""
_NPROC_WORDS = ("auto", "gpu", "cpu")
_EXPLICIT = ("flag", "argument")
"""Sources that have priority over variables; a config file or a recipe's header has not."""


def applied(
    job: Job, sources: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[Job, dict[str, str], OwnNode | None]:
    """Return the job with what the variables say, the sources, and this node if it is one of many.

    Args:
        job: The job. If it names hosts, or where its nodes are, the variables are not read.
        sources: The source of each of its fields that is not a default.
        environ: The environment.

    Raises:
        UsageError: A variable is missing or wrong, or contradicts a flag.
    """
    found, own = dict(sources), None
    update: dict[str, Any] = {}
    if job.on or job.hosts:
        return job, found, None
    if (platform := _platform(job, environ)) is not None:
        own, nodes = _read(platform, job, sources, environ)
        update = {"nodes": nodes}
        if not own.by_head or own.sources["master_port"] != "default":
            update["master_port"] = own.port
        found |= own.sources
    value = environ.get(_NPROC, "").strip()
    if value and sources.get("nproc_per_node") not in _EXPLICIT:
        update["nproc_per_node"], found["nproc_per_node"] = _nproc(value), _NPROC
    return job.model_copy(update=update), found, own


def _platform(job: Job, environ: Mapping[str, str]) -> Platform | None:
    """Return the platform that has started this command on several nodes, if there is one."""
    several = "nodes" in job.model_fields_set and job.nodes.max > 1
    for platform in PLATFORMS:
        if platform.count:
            if not re.fullmatch(r"\s*(1(:1)?\s*)?", environ.get(platform.count, "")):
                return platform
        elif environ.get(platform.rank) and several:
            return platform
    return None


def _nproc(value: str) -> int | str:
    if value in _NPROC_WORDS:
        return value
    return number(_NPROC, value, 1, 1 << 16, "auto, gpu, cpu or a number from 1")


def _read(
    platform: Platform, job: Job, sources: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[OwnNode, NodeRange]:
    """Return this node as the variables of its platform describe it, and how many there are.

    Raises:
        UsageError: See `applied`.
    """
    by_head = has_key(environ)
    nodes, count_from = _count(platform, job, sources, environ)
    count = nodes.max + job.spare
    if nodes.min < nodes.max and not by_head:
        what = f"{count_from}={nodes}" if platform.count else f"--nodes {nodes}"
        raise UsageError(
            f"{what} is elastic, but nodes that supervise themselves cannot go on with fewer",
            f"a fixed number of nodes; {_WITH_KEY}, --hosts and Slurm can go on with fewer",
        )
    _hold_once_a_node(platform, environ)
    rank = number(platform.rank, _needed(platform, platform.rank, environ), 0, _MAX_NODES)
    if rank >= count:
        raise UsageError(
            f"{platform.rank}={rank} is not below {count}, the number of nodes ({count_from})",
            f"{platform.name} numbers the nodes from 0: {platform.source}",
        )
    for flag, value in (("--max-restarts", job.max_restarts), ("--spare", job.spare)):
        if value and not by_head:
            raise UsageError(
                f"{flag} {value} cannot be kept over {count} nodes that supervise themselves:"
                " nobody restarts all of them at once",
                f"leave it out, and let the platform restart the job; or {_WITH_KEY}",
            )
    addresses = _addresses(platform, count, environ)
    head, head_from, endpoint_port = _head(platform, addresses, rank, environ)
    port, port_from = _port(platform, job, sources, endpoint_port, head_from, environ)
    run_id, id_from = first_of(platform.run_id, environ)
    own = OwnNode(
        platform.name,
        count,
        rank,
        head,
        port,
        # a store takes any text, but it is printed too
        re.sub(r"[^\w.:-]+", "-", run_id or f"{head}:{port}")[:200],
        addresses,
        {
            "nodes": count_from,
            "node_rank": platform.rank,
            "master_addr": head_from,
            "master_port": port_from,
            "rdzv_id": id_from or head_from,
        },
        by_head=by_head,
    )
    return own, nodes


def _count(
    platform: Platform, job: Job, sources: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[NodeRange, str]:
    """Return the number of nodes, and what said it."""
    if not platform.count:
        return job.nodes, sources.get("nodes", "argument")
    least, _, most = environ[platform.count].strip().partition(":")
    counts = [
        number(platform.count, value, 1, _MAX_NODES, "a number of nodes")
        for value in (least, most or least)
    ]
    if job.spare >= min(counts):
        raise UsageError(
            f"--spare {job.spare} leaves no node for ranks: {platform.count}={min(counts)}",
            f"--spare {min(counts) - 1} at most",
        )
    found = NodeRange(min(counts) - job.spare, max(counts) - job.spare)
    if sources.get("nodes") in _EXPLICIT and job.nodes != found:
        raise UsageError(
            f"--nodes {job.nodes} contradicts {platform.count}={found}",
            "leave --nodes out; --on local starts a job of its own on this machine",
        )
    return found, platform.count


def _hold_once_a_node(platform: Platform, environ: Mapping[str, str]) -> None:
    times = environ.get(platform.started_here, "1") if platform.started_here else "1"
    if times != "1":
        raise UsageError(
            f"{platform.name} started distrun {times} times on this node"
            f" ({platform.started_here}); distrun starts the ranks of a node by itself",
            platform.cure,
        )


def _addresses(platform: Platform, count: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    found = tuple(environ.get(platform.addresses, "").split()) if platform.addresses else ()
    if found and len(found) != count:
        raise UsageError(
            f"{platform.addresses} has {len(found)} addresses, but {platform.count} is {count}",
            f"{platform.source} describes them",
        )
    return found


def _head(
    platform: Platform, addresses: Sequence[str], rank: int, environ: Mapping[str, str]
) -> tuple[str, str, str]:
    """Return the head's address, the variable that names it, and a port if it has one."""
    value, name = first_of(platform.head, environ)
    if not value and addresses:
        value, name = addresses[0], platform.addresses
    if not value and not platform.count:
        value, name = _pod_0(socket.getfqdn(), rank), "hostname"
    if not value:
        names = " or ".join(filter(None, (*platform.head, platform.addresses)))
        raise UsageError(
            f"{platform.name} does not say where node 0 is: {names} is not set",
            platform.cure or f"{platform.source} describes them",
        )
    host, port = host_and_port(value)
    if not re.fullmatch(r"[\w.:%-]+", host):
        raise UsageError(f"{name}={value!r} is no address", f"see {platform.source}")
    return host, name, port


def _pod_0(hostname: str, index: int) -> str:
    """Return the name of pod 0 of an Indexed Job: `a-0.svc` for `a-3.svc`; "" if unknown."""
    own, dot, domain = hostname.partition(".")
    if not own.endswith(f"-{index}"):
        return ""
    return f"{own.removesuffix(str(index))}0{dot}{domain}"


def _port(
    platform: Platform,
    job: Job,
    sources: Mapping[str, str],
    endpoint_port: str,
    head_from: str,
    environ: Mapping[str, str],
) -> tuple[int, str]:
    if job.master_port is not None and sources.get("master_port") in _EXPLICIT:
        return job.master_port, sources["master_port"]
    value, name = first_of(platform.port, environ)
    if not value:
        value, name = endpoint_port, head_from
    if value:
        return number(name, value, 1, 65535, "a port"), name
    if job.master_port is not None:
        return job.master_port, sources.get("master_port", "default")
    return _TORCHRUNS_PORT, "default"


def _needed(platform: Platform, name: str, environ: Mapping[str, str]) -> str:
    if not (value := environ.get(name, "").strip()):
        raise UsageError(
            f"{platform.count} says that there are several nodes, but {name} is not set",
            f"{platform.name} sets it: {platform.source}; --on local runs this machine alone",
        )
    return value
