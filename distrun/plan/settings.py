"""Adds the choices that follow from the plan itself, for `--explain`."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from distrun.plan.draft import Draft
from distrun.plan.model import LaunchPlan, Setting


def with_settings(plan: LaunchPlan, draft: Draft) -> LaunchPlan:
    """Return the plan with every choice in it, in the order of the printed line."""
    own = [Setting(*row) for row in (*_flags(plan, draft), *_supervision(plan, draft))]
    hidden = set(plan.secrets)
    shown = [replace(s, value="***") if s.name in hidden else s for s in (*own, *draft.settings)]
    return replace(plan, settings=tuple(shown), notes=tuple(draft.notes))


def _what_it_is(address: str) -> str:
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "a name that is unknown here; each node resolves it"
    return "an address, so that no name is resolved"


def _flags(plan: LaunchPlan, draft: Draft) -> list[tuple[str, str, str, str]]:
    job, head, source = draft.job, plan.nodes[0], draft.source
    own = plan.supervised[0]
    port_source = source("master_port", "detected" if plan.local else "default")
    resolved = "detected" if not plan.local and head.address != head.host else "default"
    emulated = plan.local and plan.nnodes > 1
    ranks = f"0..{plan.nnodes - 1}" if plan.nnodes > 1 else "0"
    order = "in the order of the hosts, so rank order is host order"
    restarts = f"distrun restarts the world itself, {plan.max_restarts} times at most"
    restarts += f" ({source('max_restarts')})"
    if plan.own_node is not None:
        restarts = "nobody can restart all nodes at once"
        ranks, order = str(plan.own_node), "as the platform numbers the nodes"
    timeout_s = max(1, round(plan.join_timeout_s))
    return [
        (
            "--nnodes",
            str(job.nodes) if plan.local else str(plan.nnodes),
            source("hosts" if job.hosts else "nodes"),
            "emulated on this machine" if emulated else "nodes",
        ),
        ("--node-rank", ranks, source("node_rank"), order),
        ("--master-addr", head.address, source("master_addr", resolved), _what_it_is(head.address)),
        (
            "--master-port",
            str(plan.master_port),
            port_source,
            "free just now" if port_source == "detected" else "rendezvous on node 0",
        ),
        ("--local-addr", own.address, resolved, "the address that a node announces to the others"),
        (
            "--rdzv-id",
            plan.rdzv_id or plan.run_id,
            source("rdzv_id"),
            "the same on all nodes" if plan.rdzv_id else "unique to this run",
        ),
        (
            "--rdzv-conf",
            f"timeout={timeout_s}",
            source("join_timeout"),
            "torch's default is 900 s without a message",
        ),
        (
            "--max-restarts",
            "0",
            "default",
            restarts,
        ),
        (
            "--signals-to-handle",
            "SIGTERM,…,SIGUSR2",
            "default",
            "without it SIGUSR1 kills torchrun and leaves its ranks running",
        ),
    ]


def _supervision(plan: LaunchPlan, draft: Draft) -> list[tuple[str, str, str, str]]:
    job, source = draft.job, draft.source
    start = "warm fork" if plan.warm else "cold start"
    limit = f"{plan.time_limit_s:g} s" if plan.time_limit_s else "none"
    size = f"{job.log_max_mib} MiB" if job.log_max_mib else "unlimited"
    return [
        (
            "start method",
            start,
            source("start_method"),
            "of distrun's ranks; a pasted line always starts cold",
        ),
        ("grace", f"{plan.grace_s:g} s", source("grace"), "from SIGTERM to SIGKILL"),
        (
            "linger",
            f"{plan.linger_s:g} s",
            source("linger"),
            "for processes that ranks leave behind at a clean end",
        ),
        ("join timeout", f"{plan.join_timeout_s:g} s", source("join_timeout"), "for nodes to join"),
        (
            "straggler notice",
            f"{plan.straggler_notice_s:g} s" if plan.straggler_notice_s else "never",
            source("straggler_notice"),
            "to report ranks that run on when others have ended",
        ),
        (
            "hang timeout",
            f"{plan.hang_timeout_s:g} s" if plan.hang_timeout_s else "never",
            source("hang_timeout"),
            "without progress, while ranks wait for a rank",
        ),
        ("on hang", job.on_hang, source("on_hang"), "what is done about it"),
        ("spare", str(job.spare), source("spare"), "nodes that stand by, without ranks"),
        ("regrow", _yes(job.regrow), source("regrow"), "at a checkpoint, with nodes that are back"),
        (
            "on failure",
            " ".join(f"{name}={action}" for name, action in job.on_failure.items()) or "defaults",
            source("on_failure"),
            "what is done about a failure",
        ),
        ("time limit", limit, source("time_limit"), "for the whole run"),
        ("log size", size, source("log_max_mib"), "at which a rank's log is rotated"),
        (
            "metrics every",
            f"{plan.metrics_every_s:g} s" if plan.metrics_every_s else "never",
            source("metrics_every"),
            "samples of each machine",
        ),
        ("report", _yes(plan.report), source("report"), "report.html at the end"),
        ("runs dir", str(job.runs_dir), source("runs_dir"), "where the run is recorded"),
        *([] if plan.local or plan.own_node is not None else _elsewhere(plan, draft)),
    ]


def _elsewhere(plan: LaunchPlan, draft: Draft) -> list[tuple[str, str, str, str]]:
    job, source = draft.job, draft.source
    python = job.python or "as here, else python3"
    return [
        ("on", job.on or "ssh", source("on", source("hosts")), "how the nodes are reached"),
        ("python", python, source("python"), "the interpreter on the nodes"),
        ("workdir", plan.workdir, source("workdir"), "the working directory on the nodes"),
        ("sync", _yes(job.sync), source("sync"), "the project is sent to the nodes"),
        ("bootstrap", _yes(job.bootstrap), source("bootstrap"), "distrun is sent to the nodes"),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
