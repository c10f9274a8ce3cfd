"""Makes the plan from the job and the facts of the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from distrun import env
from distrun.errors import MachineError, UsageError
from distrun.failures import HANG, OBSERVE, chosen
from distrun.listen import is_loopback
from distrun.plan.devices import choose_gpus, choose_nproc, usable_gpus, visible_devices
from distrun.plan.draft import Draft
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.plan.settings import with_settings
from distrun.plan.site import Machine, Site
from distrun.spec.job import Header, Job

MAX_EMULATED_NODES = 64
MAX_LOCAL_RANKS = 1024


def make_plan(
    job: Job,
    sources: Mapping[str, str],
    header: Header,
    site: Site,
    *,
    run_id: str,
    secret_env: Mapping[str, str],
    workdir: str,
    cold_reason: str = "",
) -> LaunchPlan:
    """Return the plan.

    Args:
        job: The job.
        sources: The source of each of its fields that is not a default.
        header: The recipe's own defaults and constraints.
        site: The machines.
        run_id: Name of the run.
        secret_env: Variables of the env file.
        workdir: The working directory on other machines.
        cold_reason: Why ranks must not start warm, "" if they may.

    Raises:
        UsageError: The job contradicts itself or a constraint of the recipe.
        MachineError: The machine has fewer GPUs than asked for.
    """
    draft = Draft(job, sources, site)
    if site.own_node is not None:
        alone = "each node supervises and records itself"
        by = "node 0 supervises and records all nodes" if site.by_head else alone
        number = f"node {site.own_node} of {len(site.machines)} ({draft.source('node_rank')})"
        draft.note(f"{number}; {by}")
    nnodes = _nnodes(job, site)
    local = site.emulated
    _hold_limits(job, nnodes, site)
    gpus = [choose_gpus(draft, machine) for machine in site.machines]
    nproc = _nproc(draft, nnodes, gpus)
    usable = usable_gpus(draft, site.head)
    if gpus[0] is None and local and 1 < nnodes + job.spare <= len(usable):
        gpus = [usable]  # each node must see other GPUs than the next
    _hold_local_ranks(local, nnodes * nproc)
    for count in range(min(job.nodes.min, nnodes) if _is_elastic(job) else nnodes, nnodes + 1):
        hold_constraints(header, job, count, nproc)
    port = job.master_port or site.free_port
    warm = job.start_method == "forkserver" and not cold_reason and not job.no_python
    if cold_reason and job.start_method == "forkserver":
        draft.note(f"{job.script} starts cold: {cold_reason}")
    nodes = _nodes(draft, nnodes + job.spare, nproc, gpus, secret_env)
    plan = LaunchPlan(
        run_id=run_id,
        program=Program(job.script, job.args, job.module, job.no_python),
        nodes=nodes[:nnodes],
        min_nodes=min(job.nodes.min, nnodes) if _is_elastic(job) else nnodes,
        nproc_per_node=nproc,
        master_port=port,
        master_port_is_users=job.master_port is not None,
        warm=warm,
        max_restarts=job.max_restarts,
        grace_s=job.grace,
        linger_s=job.grace if job.linger is None else job.linger,
        straggler_notice_s=job.straggler_notice,
        hang_timeout_s=job.hang_timeout,
        stops_on_hang=_actions(job)[HANG] != OBSERVE,
        join_timeout_s=job.join_timeout,
        time_limit_s=job.time_limit,
        local=local,
        log_max_nbytes=job.log_max_mib << 20,
        workdir=workdir,
        bootstrap=job.bootstrap,
        secrets=tuple(sorted(set(secret_env) | {name for name in job.env if env.is_secret(name)})),
        actions=_actions(job),
        settings=(),
        own_node=site.own_node,
        rdzv_id=site.rdzv_id,
        spares=nodes[nnodes:],
        max_nodes=nnodes,
        regrow=job.regrow,
        metrics_every_s=job.metrics_every,
        report=job.report,
    )
    return with_settings(plan, draft)


def _actions(job: Job) -> dict[str, str]:
    observed = {HANG: OBSERVE} if job.on_hang == OBSERVE else {}
    return chosen(observed | job.on_failure)


def _nnodes(job: Job, site: Site) -> int:
    """Return how many nodes have ranks; the rest are spares.

    Raises:
        UsageError: The spares leave none.
    """
    nnodes = job.nodes.max if site.emulated else len(site.machines) - job.spare
    if nnodes < 1:
        count = len(site.machines)
        raise UsageError(
            f"--spare {job.spare} leaves no node for ranks: there are {count}",
            f"--spare {count - 1} at most" if count > 1 else "name more hosts",
        )
    return nnodes


def _is_elastic(job: Job) -> bool:
    return job.nodes.min < job.nodes.max


def _nproc(draft: Draft, nnodes: int, gpus: Sequence[list[str] | None]) -> int:
    """Return the ranks of a node: as many as the smallest machine has."""
    counts = [
        choose_nproc(draft, machine, nnodes, names)
        for machine, names in zip(draft.site.machines, gpus, strict=True)
    ]
    nproc = min(counts)
    if max(counts) > nproc:
        each = zip(draft.site.machines, counts, strict=True)
        most = ", ".join(f"{machine.host} {count}" for machine, count in each)
        draft.note(f"{nproc} rank{'s' * (nproc != 1)} on each node, as the smallest has: {most}")
        draft.choose("--nproc-per-node", nproc, "detected", "as the smallest node has")
    return nproc


def _hold_limits(job: Job, nnodes: int, site: Site) -> None:
    """Refuse too many nodes, and nodes that could not reach one another."""
    if site.emulated and nnodes + job.spare > MAX_EMULATED_NODES:
        spare = f" and --spare {job.spare} are" if job.spare else " is"
        raise UsageError(
            f"--nodes {job.nodes}{spare} above the limit of {MAX_EMULATED_NODES} emulated nodes on"
            " one machine",
            "--hosts a,b names real machines",
        )
    for machine in site.machines:
        if nnodes > 1 and not site.asked and is_loopback(machine.address):
            raise MachineError(
                f"host {machine.host!r} is {machine.address} here, which no other machine can"
                " reach",
                "use its address in the network of the other nodes",
            )


def _hold_local_ranks(local: bool, world_size: int) -> None:
    if local and world_size > MAX_LOCAL_RANKS:
        raise UsageError(
            f"{world_size} ranks on one machine are above the limit of {MAX_LOCAL_RANKS}",
            "fewer --nodes or --nproc-per-node",
        )


def hold_constraints(header: Header, job: Job, nnodes: int, nproc: int | None) -> None:
    """Refuse a layout that violates a constraint of the recipe.

    Args:
        header: The recipe's own table.
        job: The job.
        nnodes: Its nodes.
        nproc: Its ranks on each; None: not known yet, and not judged.

    Raises:
        UsageError: A constraint is violated.
    """
    rules = header.constraints
    for name, value, rule in (
        ("world-size", nnodes * nproc if nproc else None, rules.world_size),
        ("nproc-per-node", nproc, rules.nproc_per_node),
        ("nodes", nnodes, rules.nodes),
    ):
        if value is not None and (broken := rule.broken_by(value)):
            raise UsageError(
                f"{job.script} needs a {name} of {broken}, this launch has {value}"
                + (f" ({nnodes} × {nproc})" if nproc else ""),
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
    gpus: Sequence[list[str] | None],
    secret_env: Mapping[str, str],
) -> tuple[NodePlan, ...]:
    job, site = draft.job, draft.site
    machines = site.first(nnodes)
    found = [  # the head last: `--explain` shows its own
        _threads(draft, machine, nproc, nnodes - job.spare) | _network(draft, machine)
        for machine in reversed(machines)
    ]
    common: dict[str, str] = {}
    if job.strategy:
        common[env.STRATEGY] = job.strategy
        draft.choose(env.STRATEGY, job.strategy, draft.source("strategy"), "read by the recipe")
    if job.track:
        common[env.TRACK] = job.track
        draft.choose(env.TRACK, job.track, draft.source("track"), "of distrun.train.metrics")
    for name, value in secret_env.items():
        common[name] = value
        draft.choose(name, value, "env file", "")
    for name, value in job.env.items():
        common[name] = value
        draft.choose(name, value, draft.source("env"), "")
    shares = _shares(draft, nnodes, gpus)
    return tuple(
        NodePlan(
            rank,
            f"node{rank}" if site.emulated else machine.host,
            machine.address,
            own | common | shares[rank],
            machine.command,
            machine.probe,
        )
        for rank, (machine, own) in enumerate(zip(machines, reversed(found), strict=True))
    )


def _threads(draft: Draft, machine: Machine, nproc: int, nnodes: int) -> dict[str, str]:
    if (given := machine.variable("OMP_NUM_THREADS")) is not None:
        draft.choose("OMP_NUM_THREADS", given, "environment", "threads of a rank")
        return {"OMP_NUM_THREADS": given}
    ranks = nproc * (nnodes if draft.site.emulated else 1)
    threads = str(max(1, machine.cores // ranks))
    why = f"{machine.cores} cores divided among the ranks"
    draft.choose("OMP_NUM_THREADS", threads, "detected", why)
    return {"OMP_NUM_THREADS": threads}


def _network(draft: Draft, machine: Machine) -> dict[str, str]:
    """Return the interface for gloo and NCCL: what --interface says, else the user's variables."""
    why = "all nodes are on this machine" if draft.site.emulated else "of the way to the head"
    source, found = draft.source("interface", "detected"), dict[str, str]()
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        given = machine.variable(name) if source == "detected" else None
        if value := given or machine.interface:
            draft.choose(name, value, "environment" if given else source, "" if given else why)
            found[name] = value
    return found


def _shares(draft: Draft, nnodes: int, gpus: Sequence[list[str] | None]) -> list[dict[str, str]]:
    """Return the variables that give each node its GPUs."""
    if not (names := gpus[0]):
        return [{} for _ in range(nnodes)]
    site = draft.site
    share = len(names) // nnodes if site.emulated else 0
    as_found = draft.job.gpus is None and visible_devices(draft, site.head) is not None
    order = {} if as_found else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    draft.choose(
        "CUDA_VISIBLE_DEVICES",
        ",".join(names),
        draft.source("gpus", "detected"),
        "divided among the nodes" if share else "on every node",
    )
    for name, value in order.items():
        draft.choose(name, value, "default", "numbers as in NVML")
    own = [names[i * share : (i + 1) * share] for i in range(nnodes)] if site.emulated else gpus
    return [order | {"CUDA_VISIBLE_DEVICES": ",".join(mine or ())} for mine in own]


def run_name(program: str, stamp: str, suffix: str) -> str:
    """Return `<date>-<time>-<recipe>-<4 hex>` without special characters."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", program).strip("-")[:40] or "run"
    return f"{stamp}-{plain}-{suffix}"
