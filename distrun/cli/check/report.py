"""`distrun check --report`: Markdown to paste into an issue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distrun.api.check import CheckReport, Node, Severity
from distrun.cli.check.findings import lines_of, summary
from distrun.cli.check.view import GPU_COLUMNS, NODE_COLUMNS, gpu_cells, node_cells
from distrun.cli.screen.console import plain

_VERSIONS = ("distrun", "Python", "CUDA", "NCCL")


def as_markdown(report: CheckReport) -> str:
    """Return a report; the caller has removed names from it (`api.anonymous`)."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: CheckReport) -> Iterator[str]:
    yield "### distrun check"
    yield ""
    rows = [[*node_cells(node), *_versions(node)] for node in report.nodes]
    yield from _table([*NODE_COLUMNS, *_VERSIONS], rows)
    gpus = [[node.name, *gpu_cells(gpu)] for node in report.nodes for gpu in node.nvml.gpus]
    if gpus:
        yield ""
        yield from _table(["node", *GPU_COLUMNS], gpus)
    job = report.job
    on = "GPUs" if job.uses_gpus else "the CPU"
    yield ""
    yield f"Judged for {job.nnodes} × {job.nproc_per_node} ranks on {on}: " + summary(
        lines_of(report)
    )
    yield ""
    for line in lines_of(report):
        if line.finding.severity > Severity.SKIP:
            yield f"- **{line.finding.severity.name}** `{line.finding.id}` {_inline(line.text)}"
    yield from _skipped(report)
    yield from _environment(report.nodes)


def _versions(node: Node) -> list[str]:
    found = node.software
    return [found.distrun, found.python, found.torch_cuda or "-", found.nccl or "-"]


def _skipped(report: CheckReport) -> Iterator[str]:
    skipped = [line for line in lines_of(report) if line.finding.severity == Severity.SKIP]
    if skipped:
        names = ", ".join(dict.fromkeys(f"`{line.finding.id}`" for line in skipped))
        yield f"- not judged: {names}"


def _environment(nodes: Sequence[Node]) -> Iterator[str]:
    environs = [(node.name, node.host.environ) for node in nodes if node.host.environ]
    if environs:
        yield ""
        yield "```"
        for name, environ in environs:
            yield from (plain(f"{name}: {k}={v}").replace("```", "") for k, v in environ.items())
        yield "```"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(_inline, row))} |"


def _inline(text: str) -> str:
    """Return text with its markup escaped, on one line."""
    text = plain(text)
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, "\\" + mark)
    return text
