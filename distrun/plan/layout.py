"""From a job and what was found on the machine to the plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from distrun import env
from distrun.errors import MachineError, UsageError
from distrun.plan.model import LaunchPlan, NodePlan, Program, Setting
from distrun.probe.facts import Facts
from distrun.probe.host import LOOPBACK, LOOPBACK_INTERFACE
from distrun.spec.job import Header, Job

MAX_AUTO_NPROC = 4
_HOSTS_PORT = 29500  # a port free here says nothing about another machine
_ONE_PROCESS = ("dp",)


@dataclass
class _Draft:
    """The choices while they are being made."""

    job: Job
    sources: Mapping[str, str]
    facts: Facts
    settings: list[Setting] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def source(self, name: str, fallback: str = "default") -> str:
        return self.sources.get(name, fallback)

    def choose(self, name: str, value: object, source: str, why: str) -> None:
        """Note a choice; a later one takes the place of an earlier one."""
        self.settings = [setting for setting in self.settings if setting.name != name]
        self.settings.append(Setting(name, str(value), source, why))


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
        job: What is asked for.
        sources: Where each field of it came from, if it is no default.
        header: The recipe's own defaults and constraints.
        facts: What was found on this machine.
        run_id: Name of the run.
        secret_env: Variables of the env file.
        cold_reason: Why ranks must not start warm, "" if they may.

    Raises:
        UsageError: The job contradicts itself or a constraint of the recipe.
        MachineError: The machine has fewer GPUs than asked for.
    """
    draft = _Draft(job, sources, facts)
    nnodes = len(job.hosts) or job.nodes.max
    if job.hosts and "nodes" in sources and job.nodes.max != len(job.hosts):
        raise UsageError(
            f"--nodes {job.nodes} and --hosts with {len(job.hosts)} names do not agree",
            "leave one of them out",
        )
    local = not job.hosts
    gpus = _choose_gpus(draft)
    nproc = _choose_nproc(draft, nnodes, local, gpus)
    if gpus is None and local and 1 < nnodes <= len(usable := _usable_gpus(draft)):
        gpus = usable  # each node must see others than its neighbour
    _hold_constraints(header, job, nnodes, nproc)
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
        join_timeout_s=job.join_timeout,
        time_limit_s=job.time_limit,
        local=local,
        log_max_nbytes=job.log_max_mib << 20,
        secrets=tuple(sorted(set(secret_env) | {name for name in job.env if env.is_secret(name)})),
        settings=(),
    )
    return _with_settings(plan, draft)


def _choose_gpus(draft: _Draft) -> list[str] | None:
    """Return the GPUs to hand out as CUDA_VISIBLE_DEVICES names, None to leave them alone."""
    found = draft.facts.gpus
    wanted = draft.job.gpus
    if wanted is None:
        return None
    if not found.gpus:
        raise MachineError(
            f"--gpus {wanted} asks for GPUs and there are none: {found.problem}",
            "leave --gpus out to train on the CPU",
        )
    if draft.facts.torch.cuda is None:
        raise MachineError(
            f"--gpus {wanted} asks for GPUs, and torch {draft.facts.torch.version} is built"
            " without CUDA",
            "install a CUDA build of torch, or leave --gpus out to train on the CPU",
        )
    if wanted.startswith("free:"):
        count = int(wanted.partition(":")[2])
        free = [str(gpu.index) for gpu in found.gpus if not gpu.busy]
        if len(free) < count:
            raise MachineError(
                f"--gpus {wanted} asks for {count} unused GPUs, {len(free)} of"
                f" {len(found.gpus)} are unused",
                f"--gpus free:{len(free)}" if free else "wait for the others, or name GPUs",
            )
        return free[:count]
    known = {str(gpu.index) for gpu in found.gpus}
    for number in wanted.split(","):
        if number not in known:
            raise MachineError(
                f"--gpus {wanted} names GPU {number}; this machine has {len(known)}:"
                f" {', '.join(sorted(known))}"
            )
    return wanted.split(",")


def _usable_gpus(draft: _Draft) -> list[str]:
    """Return what `auto` may count: GPUs this torch and CUDA_VISIBLE_DEVICES leave."""
    facts = draft.facts
    if facts.torch.cuda is None:
        return []
    if (visible := _visible_devices(draft)) is None:
        return [str(gpu.index) for gpu in facts.gpus.gpus]
    names = [name.strip() for name in visible.split(",")]
    listed = []
    for name in names:  # CUDA stops at the first name it does not know
        known = any(name == str(g.index) or g.uuid.startswith(name) for g in facts.gpus.gpus)
        if not name or not (known or name.startswith("MIG-")):
            break
        listed.append(name)
    return listed if len(set(listed)) == len(listed) else []  # CUDA takes no name twice


def _visible_devices(draft: _Draft) -> str | None:
    return draft.job.env.get("CUDA_VISIBLE_DEVICES", draft.facts.visible_devices)


def _choose_nproc(draft: _Draft, nnodes: int, local: bool, gpus: list[str] | None) -> int:
    job, facts = draft.job, draft.facts
    emulated = nnodes if local else 1
    usable = _usable_gpus(draft) if gpus is None else gpus
    gpus_a_node, cores_a_node = len(usable) // emulated, max(1, facts.host.cores // emulated)
    asked = job.nproc_per_node
    source, why = draft.source("nproc_per_node"), "ranks on each node"
    if gpus is not None and not gpus_a_node:
        raise MachineError(
            f"--gpus {job.gpus} cannot be shared out to {nnodes} nodes", f"--nodes {len(gpus)}"
        )
    if job.strategy in _ONE_PROCESS:
        if asked not in ("auto", 1) or nnodes > 1:
            raise UsageError(
                f"strategy {job.strategy} is one process; --nodes {job.nodes}"
                f" --nproc-per-node {asked} asks for more",
                "--strategy ddp, or leave both flags out",
            )
        nproc, source, why = 1, draft.source("strategy"), f"{job.strategy} is one process"
    elif asked == "gpu":
        if not gpus_a_node:
            reason = facts.gpus.problem
            if not reason and facts.torch.cuda is None:
                reason = f"torch {facts.torch.version} is built without CUDA"
            elif not reason:
                shared = f" for {emulated} nodes" if emulated > 1 else ""
                reason = f"{len(usable)} usable{shared}"
            raise MachineError(
                f"--nproc-per-node gpu finds no GPU: {reason}", "--nproc-per-node cpu"
            )
        nproc, source, why = gpus_a_node, "detected", "one rank a GPU"
    elif asked == "cpu":
        nproc, source, why = cores_a_node, "detected", "one rank a core"
    elif asked == "auto" and gpus_a_node:
        nproc, source, why = gpus_a_node, "detected", f"{len(usable)} GPUs, one rank each"
    elif asked == "auto":
        nproc, source = min(MAX_AUTO_NPROC, cores_a_node), "detected"
        shared = f" over {emulated} emulated nodes" if emulated > 1 else ""
        why = f"{facts.host.cores} cores{shared}, at most {MAX_AUTO_NPROC} ranks a node"
        draft.notes.append(f"{nproc} {'rank' if nproc == 1 else 'ranks'} a node: no GPU, {why}")
    else:
        nproc = int(asked)
        if gpus is not None and nproc > gpus_a_node:
            raise MachineError(
                f"--nproc-per-node {nproc} is above the {gpus_a_node} GPUs a node"
                f" that --gpus {job.gpus} gives",
                f"--nproc-per-node {gpus_a_node}" if gpus_a_node else "fewer nodes",
            )
        if 0 < gpus_a_node < nproc:
            draft.notes.append(
                f"fewer GPUs ({gpus_a_node}) than ranks ({nproc}) a node: recipes use gloo on CPU"
            )
    draft.choose("--nproc-per-node", nproc, source, why)
    return nproc


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
    draft: _Draft,
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
            f"{facts.host.cores} cores shared out to the ranks",
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
    as_found = job.gpus is None and _visible_devices(draft) is not None
    order = {} if as_found else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    for rank in range(nnodes):
        own = dict(common)
        if gpus:
            mine = gpus[rank * share : (rank + 1) * share] if local else gpus
            own |= order | {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
        host = f"node{rank}" if local else job.hosts[rank]
        address = LOOPBACK if local else (facts.addresses.get(host) or host)
        nodes.append(NodePlan(host, address, own))
    if gpus:
        draft.choose(
            "CUDA_VISIBLE_DEVICES",
            ",".join(gpus),
            draft.source("gpus", "detected"),
            "shared out to the nodes" if share else "on every node",
        )
        for name, value in order.items():
            draft.choose(name, value, "default", "numbers as NVML gives them")
    return tuple(nodes)


def _with_settings(plan: LaunchPlan, draft: _Draft) -> LaunchPlan:
    """Add the choices that follow from the plan itself, in the order of the line."""
    from dataclasses import replace

    job, head = draft.job, plan.nodes[0]
    port_source = draft.source("master_port", "detected" if plan.local else "default")
    address_source = "detected" if not plan.local and head.address != head.host else "default"
    flags = [
        Setting(
            "--nnodes",
            str(job.nodes) if plan.local else str(plan.nnodes),
            draft.source("hosts" if job.hosts else "nodes"),
            "emulated on this machine" if plan.local and plan.nnodes > 1 else "nodes",
        ),
        Setting(
            "--node-rank",
            f"0..{plan.nnodes - 1}" if plan.nnodes > 1 else "0",
            "default",
            "in the order of the hosts, so rank order is host order",
        ),
        Setting("--master-addr", head.address, address_source, "an address, never a name to guess"),
        Setting(
            "--master-port",
            str(plan.master_port),
            port_source,
            "free a moment ago" if port_source == "detected" else "rendezvous on node 0",
        ),
        Setting("--local-addr", head.address, address_source, "what a node tells the others"),
        Setting("--rdzv-id", plan.run_id, "default", "of this run alone"),
        Setting(
            "--rdzv-conf",
            f"timeout={max(1, round(plan.join_timeout_s))}",
            draft.source("join_timeout"),
            "torch's own would be 900 s of silence",
        ),
        Setting(
            "--max-restarts",
            "0",
            "default",
            f"distrun restarts the world itself, {plan.max_restarts} times at most"
            f" ({draft.source('max_restarts')})",
        ),
        Setting(
            "--signals-to-handle",
            "SIGTERM,…,SIGUSR2",
            "default",
            "torchrun alone dies of SIGUSR1 and leaves its ranks",
        ),
        Setting(
            "start method",
            "warm fork" if plan.warm else "cold start",
            draft.source("start_method"),
            "distrun's ranks; a pasted line always starts cold",
        ),
        Setting("grace", f"{plan.grace_s:g} s", draft.source("grace"), "from SIGTERM to SIGKILL"),
        Setting(
            "join timeout",
            f"{plan.join_timeout_s:g} s",
            draft.source("join_timeout"),
            "for nodes to join",
        ),
        Setting(
            "time limit",
            f"{plan.time_limit_s:g} s" if plan.time_limit_s else "none",
            draft.source("time_limit"),
            "for the whole run",
        ),
        Setting(
            "log size",
            f"{job.log_max_mib} MiB" if job.log_max_mib else "unlimited",
            draft.source("log_max_mib"),
            "at which a rank's log is rotated",
        ),
        Setting("runs dir", str(job.runs_dir), draft.source("runs_dir"), "where it is recorded"),
    ]
    hidden = set(plan.secrets)
    shown = [replace(s, value="***") if s.name in hidden else s for s in (*flags, *draft.settings)]
    return replace(plan, settings=tuple(shown), notes=tuple(draft.notes))


def run_name(program: str, stamp: str, suffix: str) -> str:
    """Return `<date>-<time>-<recipe>-<4 hex>` with nothing a shell or a path would mind."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", program).strip("-")[:40] or "run"
    return f"{stamp}-{plain}-{suffix}"
