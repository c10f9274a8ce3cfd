"""Makes the plan from the job and the facts of the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping

from distrun import env
from distrun.errors import MachineError, UsageError
from distrun.plan.devices import choose_gpus, choose_nproc, usable_gpus, visible_devices
from distrun.plan.draft import Draft
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.plan.settings import with_settings
from distrun.probe.facts import Facts
from distrun.probe.host import LOOPBACK, LOOPBACK_INTERFACE
from distrun.spec.job import Header, Job

MAX_EMULATED_NODES = 64
MAX_LOCAL_RANKS = 1024
_HOSTS_PORT = 29500  # a free port here may be in use on another machine


def make_plan(
    job: Job,
    sources: Mapping[str, str],
    header: Header,
    facts: Facts,
    *,
    run_id: str,
    secret_env: Mapping[str, str],
    cold_reason: str = "",
) -> LaunchPlan:
    """Return the plan.

    Args:
        job: The job.
        sources: The source of each of its fields that is not a default.
        header: The recipe's own defaults and constraints.
        facts: The facts of this machine.
        run_id: Name of the run.
        secret_env: Variables of the env file.
        cold_reason: Why ranks must not start warm, "" if they may.

    Raises:
        UsageError: The job contradicts itself or a constraint of the recipe.
        MachineError: The machine has fewer GPUs than asked for.
    """
    draft = Draft(job, sources, facts)
    nnodes = len(job.hosts) or job.nodes.max
    local = not job.hosts
    if not local and "nodes" in sources and job.nodes.max != nnodes:
        raise UsageError(
            f"--nodes {job.nodes} and --hosts with {nnodes} names do not agree",
            "leave one of them out",
        )
    _hold_limits(job, nnodes, local, facts)
    gpus = choose_gpus(draft)
    nproc = choose_nproc(draft, nnodes, local, gpus)
    if gpus is None and local and 1 < nnodes <= len(usable := usable_gpus(draft)):
        gpus = usable  # each node must see other GPUs than the next
    _hold_local_ranks(local, nnodes * nproc)
    for count in range(job.nodes.min if local else nnodes, nnodes + 1):
        _hold_constraints(header, job, count, nproc)
    port = job.master_port or (facts.free_port if local else _HOSTS_PORT)
    warm = job.start_method == "forkserver" and not cold_reason and not job.no_python
    if cold_reason and job.start_method == "forkserver":
        draft.notes.append(f"{job.script} starts cold: {cold_reason}")
    nodes = _nodes(draft, nnodes, nproc, local, gpus, secret_env)
    plan = LaunchPlan(
        run_id=run_id,
        program=Program(job.script, job.args, job.module, job.no_python),
        nodes=nodes,
        min_nodes=job.nodes.min if local else nnodes,
        nproc_per_node=nproc,
        master_port=port,
        master_port_is_users=job.master_port is not None,
        warm=warm,
        max_restarts=job.max_restarts,
        grace_s=job.grace,
        linger_s=job.grace if job.linger is None else job.linger,
        straggler_notice_s=job.straggler_notice,
        join_timeout_s=job.join_timeout,
        time_limit_s=job.time_limit,
        local=local,
        log_max_nbytes=job.log_max_mib << 20,
        secrets=tuple(sorted(set(secret_env) | {name for name in job.env if env.is_secret(name)})),
        settings=(),
    )
    return with_settings(plan, draft)


def _hold_limits(job: Job, nnodes: int, local: bool, facts: Facts) -> None:
    """Refuse too many nodes, and nodes that could not reach one another."""
    if local and nnodes > MAX_EMULATED_NODES:
        raise UsageError(
            f"--nodes {job.nodes} is above the limit of {MAX_EMULATED_NODES} emulated nodes on"
            " one machine",
            "--hosts a,b with --dry-run prints lines for real machines",
        )
    for host, address in facts.addresses.items():
        if nnodes > 1 and address and address.startswith("127."):
            raise MachineError(
                f"host {host!r} is {address} here, which no other machine can reach",
                "use its address in the network of the other nodes",
            )


def _hold_local_ranks(local: bool, world_size: int) -> None:
    if local and world_size > MAX_LOCAL_RANKS:
        raise UsageError(
            f"{world_size} ranks on one machine are above the limit of {MAX_LOCAL_RANKS}",
            "fewer --nodes or --nproc-per-node",
        )


def _hold_constraints(header: Header, job: Job, nnodes: int, nproc: int) -> None:
    rules = header.constraints
    for name, value, rule in (
        ("world-size", nnodes * nproc, rules.world_size),
        ("nproc-per-node", nproc, rules.nproc_per_node),
        ("nodes", nnodes, rules.nodes),
    ):
        if broken := rule.broken_by(value):
            raise UsageError(
                f"{job.script} needs a {name} of {broken}, this launch has {value}"
                f" ({nnodes} × {nproc})",
                "change --nodes or --nproc-per-node",
            )
    if rules.strategy and job.strategy not in rules.strategy:
        raise UsageError(
            f"{job.script} knows the strategies {', '.join(rules.strategy)};"
            f" this launch has {job.strategy or 'none'}",
            f"--strategy {rules.strategy[0]}",
        )


def _nodes(
    draft: Draft,
    nnodes: int,
    nproc: int,
    local: bool,
    gpus: list[str] | None,
    secret_env: Mapping[str, str],
) -> tuple[NodePlan, ...]:
    job, facts = draft.job, draft.facts
    common: dict[str, str] = {}

    def choose(name: str, value: str, source: str, why: str) -> None:
        common[name] = value
        draft.choose(name, value, source, why)

    if facts.omp_num_threads is not None:
        choose("OMP_NUM_THREADS", facts.omp_num_threads, "environment", "threads of a rank")
    else:
        threads = max(1, facts.host.cores // (nproc * (nnodes if local else 1)))
        choose(
            "OMP_NUM_THREADS",
            str(threads),
            "detected",
            f"{facts.host.cores} cores divided among the ranks",
        )
    if local:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            choose(name, LOOPBACK_INTERFACE, "detected", "all nodes are on this machine")
    if job.strategy:
        choose(env.STRATEGY, job.strategy, draft.source("strategy"), "read by the recipe")
    for name, value in secret_env.items():
        choose(name, value, "env file", "")
    for name, value in job.env.items():
        choose(name, value, draft.source("env"), "")
    nodes = []
    share = len(gpus) // nnodes if gpus and local else 0
    as_found = job.gpus is None and visible_devices(draft) is not None
    order = {} if as_found else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    for rank in range(nnodes):
        own = dict(common)
        if gpus:
            mine = gpus[rank * share : (rank + 1) * share] if local else gpus
            own |= order | {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
        host = f"node{rank}" if local else job.hosts[rank]
        address = LOOPBACK if local else (facts.addresses.get(host) or host)
        nodes.append(NodePlan(rank, host, address, own))
    if gpus:
        draft.choose(
            "CUDA_VISIBLE_DEVICES",
            ",".join(gpus),
            draft.source("gpus", "detected"),
            "divided among the nodes" if share else "on every node",
        )
        for name, value in order.items():
            draft.choose(name, value, "default", "numbers as in NVML")
    return tuple(nodes)


def run_name(program: str, stamp: str, suffix: str) -> str:
    """Return `<date>-<time>-<recipe>-<4 hex>` without special characters."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", program).strip("-")[:40] or "run"
    return f"{stamp}-{plain}-{suffix}"
