"""The plan as text: one line to paste per node, and one line per choice."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from distrun.failures import KINDS
from distrun.plan.model import LaunchPlan, Setting


def torchrun_line(plan: LaunchPlan, node_rank: int) -> str:
    """Return a line for a POSIX shell that runs this node with torchrun.

    Secret values are left out: they must be set in the shell that the line is pasted into.
    """
    environ = plan.nodes[node_rank].environ
    words = ["env"] if environ else []
    words += [
        f"{shlex.quote(name)}={shlex.quote(value)}"
        for name, value in environ.items()
        if name not in plan.secrets
    ]
    words += ["torchrun", *map(shlex.quote, plan.torchrun_arguments(node_rank))]
    return " ".join(words)


def dry_run(plan: LaunchPlan) -> Iterator[str]:
    """Yield the lines of `--dry-run`: comments start with `#`, the rest can be pasted."""
    for note in plan.notes:
        yield _comment(note)
    shown = [name for name in plan.secrets if name in plan.supervised[0].environ]
    if shown:
        yield _comment(f"export first, here left out as secret: {' '.join(shown)}")
    for node_rank, node in enumerate(plan.nodes):
        if plan.own_node not in (None, node_rank):
            continue
        first = node_rank * plan.nproc_per_node
        last = first + plan.nproc_per_node - 1
        ranks = f"rank {first}" if first == last else f"ranks {first}-{last}"
        yield _comment(f"node {node_rank} ({node.host}): {ranks} of {plan.world_size}")
        yield torchrun_line(plan, node_rank)
    for spare in plan.spares:
        yield _comment(f"node {spare.number} ({spare.host}): a spare, without ranks")
    yield from map(_comment, _on_failure(plan))


def _on_failure(plan: LaunchPlan) -> Iterator[str]:
    """Yield what is done about each kind of failure, if the job may be restarted."""
    if not plan.survives:
        return
    yield "what is done about a failure (--on FAILURE=ACTION):"
    for kind in KINDS.values():
        yield f"  {kind.name:<12} {plan.actions[kind.name]:<8} {kind.what}"


def explain(settings: tuple[Setting, ...]) -> Iterator[str]:
    """Yield a line for each flag and variable: value, source, purpose."""
    width = max(len(f"{s.name}={s.value}") for s in settings)
    sources = max(len(s.source) for s in settings)
    for s in settings:
        assignment = f"{s.name}={s.value}".ljust(min(width, 44))
        yield _comment(f"{assignment}  {s.source.ljust(sources)}  {s.why}".rstrip())


def _comment(text: str) -> str:
    """Return one comment line for a shell, also if a file name contains line breaks."""
    return "# " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
