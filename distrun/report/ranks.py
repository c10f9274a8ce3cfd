"""The ranks side by side: what differs between them, and how each ended."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from distrun.report.facts import Facts
from distrun.report.panels import unit_of
from distrun.report.waits import Straggler, Waits

_MAX_ROWS = 64


@dataclass(frozen=True)
class RankTable:
    """A row for each rank; of very many ranks only the first ones."""

    columns: list[str]
    rows: list[list[str]]
    marked: int | None
    """The straggler, whose row is marked."""
    left_out: int


def rank_table(facts: Facts, waits: Waits, slow: Straggler | None) -> RankTable | None:
    """Return the table; None if nothing differs between the ranks."""
    medians = _medians(facts)
    last = facts.story.attempts[-1] if facts.story.attempts else None
    spans = last.ranks if last else {}
    ranks = sorted({*spans, *waits.by_rank, *(rank for each in medians.values() for rank in each)})
    codes = {rank: span.exit_code for rank, span in spans.items()}
    if len(ranks) < 2 or not (medians or waits.by_rank or len(set(codes.values())) > 1):
        return None
    columns = [
        "rank",
        "node",
        *medians,
        *(["waits for others"] if waits.by_rank else []),
        "exit code",
    ]
    hosts = facts.hosts
    rows = []
    for rank in ranks[:_MAX_ROWS]:
        node = spans[rank].node if rank in spans else None
        row = [str(rank), "" if node is None else hosts.get(node, f"node{node}")]
        for name, values in medians.items():
            row.append(unit_of(name).words(values[rank]) if rank in values else "")
        if waits.by_rank:
            row.append(waits.words(rank))
        code = codes.get(rank)
        row.append("" if code is None else str(code) if code >= 0 else f"signal {-code}")
        rows.append(row)
    marked = slow.rank if slow else None
    return RankTable(columns, rows, marked, max(0, len(ranks) - _MAX_ROWS))


def _medians(facts: Facts) -> dict[str, dict[int, float]]:
    """Return the median by rank of each value that several ranks have logged and that differs."""
    found: dict[str, dict[int, float]] = {}
    for name in facts.numbers.names:
        by_rank: dict[int, list[float]] = {}
        for line in facts.numbers.of(name):
            by_rank.setdefault(line.owner, []).extend(line.finite)
        values = {rank: median(all_) for rank, all_ in by_rank.items() if all_}
        if len(set(values.values())) > 1:
            found[name] = values
    return dict(list(found.items())[:6])
