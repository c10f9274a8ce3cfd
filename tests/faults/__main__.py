"""Injects each fault of the table, and prints what the launcher makes of it.

    python -m tests.faults [--launcher distrun|torchrun] [--layouts 1x4,2x2,ssh] [--only exit_3,…]
                           [--part 1/4] [--minutes 7] [--results FILE [--missing]] [--keep DIR]
    python -m tests.faults --markdown --results FILE

A line a launch: exit code, seconds from the fault to the exit, seconds until no process was left,
load, and which sentences do not hold. After `--minutes` no launch begins. `--results` adds each to
a file, in place of what it had of the same case; `--missing` runs what it lacks, and `--markdown`
prints it as the tables of docs/faults.md. The exit code is 1 if a sentence does not hold.
Being late alone counts if the load is at most the number of cores.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.hosts import Hosts
from tests.cluster.needs import lacking
from tests.faults.cases import CASES, Case
from tests.faults.markdown import table
from tests.faults.results import Results, Row, row_of
from tests.faults.run import directory, measure
from tests.faults.running import LAYOUTS, SSH, Layout
from tests.faults.settings import NotHere


def chosen(options: argparse.Namespace) -> list[tuple[Case, Layout]]:
    """Return the launches that are asked for."""
    only = set(filter(None, options.only.split(",")))
    layouts = [LAYOUTS[name] for name in options.layouts.split(",")]
    pairs = [
        (case, layout)
        for layout, case in itertools.product(layouts, CASES)
        if layout in case.layouts and (not only or case.id in only)
    ]
    if options.launcher == "torchrun":
        pairs = [(case, layout) for case, layout in pairs if case.torchrun and layout is not SSH]
    if options.missing:
        had = Results(Path(options.results)).rows
        pairs = [(c, at) for c, at in pairs if (c.id, at.id, options.launcher) not in had]
    part, _, parts = options.part.partition("/")
    return pairs[int(part) - 1 :: int(parts)]


@contextmanager
def hosts_of(home: Path, needed: bool) -> Iterator[Hosts | None]:
    """Boot two hosts, if they are needed and can be had."""
    reason = lacking("sshd", "ssh", "ssh-keygen") if needed else "not needed"
    if reason:
        if needed:
            print(f"no hosts: {reason}")
        yield None
        return
    hosts = Hosts(home / "hosts", names=("n01", "n02"), visible=[home])
    try:
        yield hosts
    finally:
        hosts.close()


def line(row: Row) -> str:
    """Return one launch as a line of the screen."""
    code = "/".join("-" if code is None else str(code) for code in row.codes)
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    gone = f"{row.left} left" if row.left else f"{row.gone_s:.1f}"
    told = f"! {'; '.join(row.all_wrong)}" if row.all_wrong else row.names
    return (
        f"{row.layout} {row.case:<32} {code:>7} {seconds:>6} s {gone:>6}  {row.load:>4.1f}  {told}"
    )


def run_all(options: argparse.Namespace) -> int:
    """Run what is asked for; return the number of launches that came to something wrong."""
    pairs = chosen(options)
    results = Results(Path(options.results)) if options.results else None
    failures, until = 0, time.monotonic() + 60 * options.minutes
    print(f"{'case':<36} {'exit':>7} {'after':>8} {'gone':>6}  load  what does not hold")
    with directory() as home, hosts_of(home, any(layout is SSH for _, layout in pairs)) as hosts:
        for case, layout in pairs:
            if (layout is SSH and hosts is None) or time.monotonic() > until:
                continue
            cwd = home / f"{layout.id}-{case.id}"
            cwd.mkdir()
            try:
                measured = measure(case, layout, options.launcher, cwd, hosts)
            except NotHere as reason:
                print(f"{layout.id} {case.id:<32} not here: {reason}", flush=True)
                continue
            finally:
                if hosts:
                    hosts.restore()
            row = row_of(case, measured)
            print(line(row), flush=True)
            if results:
                results.add(row)
            failures += bool(row.all_wrong)
            if options.keep and row.all_wrong:
                shutil.copytree(cwd, Path(options.keep) / cwd.name, dirs_exist_ok=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launcher", default="distrun", choices=["distrun", "torchrun"])
    parser.add_argument("--layouts", default="1x4,2x2,ssh")
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--results", default="")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--keep", default="")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if options.markdown:
        print(table(Results(Path(options.results))))
        return 0
    return int(run_all(options) > 0)


if __name__ == "__main__":
    sys.exit(main())
