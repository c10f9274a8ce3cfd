"""The results of `bench-comm --op pairs` and `--op stragglers`, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distrun.cli.bench.table import digits, size

if TYPE_CHECKING:
    from distrun.spec.bench import BenchReport, Pairs


def heading(pairs: Pairs) -> str:
    """Return a line that describes the matrix."""
    return (
        f"GB/s between every two {pairs.over}s, one message of {size(pairs.nbytes)} each way at a"
        " time; ! is slow"
    )


def names_of(report: BenchReport) -> dict[int, str]:
    """Return the names of the nodes by number, with their hosts if each has its own."""
    hosts = {rank.node: rank.host for rank in report.ranks}
    distinct = len(set(hosts.values())) == len(hosts) > 1
    return {node: f"{node} {host}" if distinct else str(node) for node, host in hosts.items()}


def matrix(report: BenchReport) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the cells of the matrix of all links."""
    pairs = report.pairs
    assert pairs is not None
    shown = names_of(report) if pairs.over == "node" else {}
    ends = sorted({end for link in pairs.links for end in (link.a, link.b)})
    slow = {end for s in pairs.suspects if s.kind != "link" for end in s.who}
    slow_links = {tuple(s.who) for s in pairs.suspects if s.kind == "link"}
    found = {}
    for link in pairs.links:
        mark = " !" if {link.a, link.b} & slow or (link.a, link.b) in slow_links else ""
        found[link.a, link.b] = found[link.b, link.a] = digits(link.bandwidth / 1e9) + mark
    names = {end: shown.get(end, str(end)) for end in ends}
    rows = [[names[a], *(found.get((a, b), "") for b in ends)] for a in ends]
    return [pairs.over, *names.values()], rows


def remarks(report: BenchReport) -> Iterator[str]:
    """Yield a line for each slow node or link, and each late rank."""
    if report.pairs is not None:
        for suspect in report.pairs.suspects:
            names = names_of(report) if report.pairs.over == "node" else {}
            who = " - ".join(names.get(end, str(end)) for end in suspect.who)
            yield f"{suspect.kind} {who} is slow: {digits(suspect.factor)} times the usual time"
        if not report.pairs.suspects:
            few = len(report.pairs.links) < 3
            over = report.pairs.over
            yield f"too few {over}s to tell a slow one" if few else f"no {over} or link is slow"
    if report.stragglers is not None:
        waits = ", ".join(digits(1000 * wait) for wait in report.stragglers.waits_s)
        yield f"waiting for the others, in ms, by rank: {waits}"
        late, by_s = report.stragglers.late, report.stragglers.by_s
        if late is None or by_s is None:
            yield "no rank is late"
        else:
            who = f"rank {late} (on {report.ranks[late].host})"
            yield f"{who} is late: the others wait {digits(1000 * by_s)} ms longer"
