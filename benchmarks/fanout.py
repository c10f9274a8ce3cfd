"""One supervisor over many nodes, whose agents are stubs without torch.

    python -m benchmarks.fanout [--agents 16,64,256] [--lines 1000] [--seconds 10] [--rounds 3]

For each number of agents: the time until all have joined, the supervisor's memory and CPU time,
the lines that it carries into the logs, how long it takes to name one node that was killed, or is
silent, and to stop all. The same stubs are run under a loop that only reads, because starting and
printing cost CPU time too: where they need all cores, the CPU time a line says more than the lines
a second. Medians, and the range if there are several rounds.

The goals: at most linear, so a ratio of the last two numbers of at most 4.5 (256 to 64); no line
is lost; a node is named within 5 s, or 5 s after the silence limit; all stop within grace + 5 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.fanout_runs import (
    GRACE_S,
    Measured,
    Printed,
    alone,
    faults,
    flow,
    flushed,
    silence,
)
from distrun.agent.stub import TICK_S
from distrun.silence import LOST_AFTER_S

RATIO = 4.5
LINEAR = (
    "all joined, s",
    "CPU until then, s",
    "memory, MiB",
    "CPU for the lines, s",
    "CPU when idle, %",
)
MOST = {
    "lines lost": 0.0,
    "each line flushed: lines lost": 0.0,
    "one killed: named after, s": 5.0,
    "one silent: named after, s": LOST_AFTER_S + 5,
    "all stopped after, s": GRACE_S + 5,
}
Rows = dict[str, dict[int, list[float]]]
"""By the name of what is measured and the number of agents."""


def measure(agents: int, printed: Printed) -> Iterator[Measured]:
    """Measure one number of agents once."""
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as name:
        yield alone(agents, printed)
        yield flow(Path(name), agents, printed)
        yield flushed(Path(name), agents, printed)
        yield faults(Path(name), agents)


def measure_all(options: argparse.Namespace, numbers: Sequence[int]) -> Rows:
    """Measure each number of agents in turn, so that all meet the same other load."""
    rows: Rows = {}
    printed = Printed(options.lines, options.seconds, max(1, round(options.lines * TICK_S)))
    for _ in range(options.rounds):
        for agents in numbers:
            for measured in measure(agents, printed):
                add(rows, agents, measured)
            print(f"{agents} agents, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    if not options.no_silence:
        with tempfile.TemporaryDirectory(prefix="distrun-bench-") as name:
            add(rows, numbers[-1], silence(Path(name), numbers[-1]))
    return rows


def add(rows: Rows, agents: int, measured: Measured) -> None:
    """Add values to the table."""
    for name, value in measured.items():
        rows.setdefault(name, {}).setdefault(agents, []).append(value)


def report(rows: Rows, numbers: Sequence[int]) -> bool:
    """Print the table; return whether each goal was met."""
    met = True
    print(f"{'':35}" + "".join(f"{n:>26}" for n in numbers) + "  ratio")
    for name, cells in rows.items():
        line = "".join(f"{cell(cells.get(agents, [])):>26}" for agents in numbers)
        verdict = ""
        if name in LINEAR and len(numbers) > 1:
            few, many = (statistics.median(cells[agents]) for agents in numbers[-2:])
            limit = RATIO * numbers[-1] / (4 * numbers[-2])
            met &= many <= limit * few
            verdict = f"{many / few:.2f}, goal {limit:.1f}"
        elif name in MOST:
            met &= max(max(values) for values in cells.values()) <= MOST[name]
            verdict = f"goal {MOST[name]:g}"
        print(f"{name:35}{line}  {verdict}".rstrip())
    return met


def cell(values: Sequence[float]) -> str:
    """Return the median and the range of some values."""
    if len(values) < 2:
        return "".join(map(shown, values))
    least, most = shown(min(values)), shown(max(values))
    return f"{shown(statistics.median(values))} ({least} … {most})"


def shown(value: float) -> str:
    """Return a number with three digits at least."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", default="16,64,256")
    parser.add_argument("--lines", type=int, default=1000, help="a second, of each agent")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-silence", action="store_true", help="do not wait for a silent node")
    options = parser.parse_args()
    numbers = [int(word) for word in options.agents.split(",")]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it")
    met = report(measure_all(options, numbers), numbers)
    print("every goal was met" if met else "a goal was missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
