"""What torchrun and distrun say of each hang of tests/process/hang_cases.py.

    python -m benchmarks.hangs [--by torchrun,distrun] [--only ddp-sleep,…] [--layouts 1x4,2x2]
                               [--hang-timeout 3] [--timeout 10] [--keep DIR]

Both launch the same script. torchrun knows of a hang only what torch's own timeout raises, so its
scripts have one of `--timeout` seconds; those of distrun have torch's default. The columns are the
exit code, the seconds to it, and who is blamed; `!` stands before an answer that is not right.
`--keep` keeps the run directories of those.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks import sides
from tests.conftest import marked_processes
from tests.others.launches import Layout, torchrun
from tests.process.hang_cases import CASES, Case
from tests.process.hang_runs import launched, ranks_blamed_by_torchrun, wrong_with

LIMIT_S = 90.0
LAYOUTS = {"1x4": Layout(1, 4), "2x2": Layout(2, 2)}


@dataclass(frozen=True)
class Cell:
    """What one launcher made of one case."""

    exit_code: int | None
    """None: it did not end within the limit."""
    seconds: float
    said: str
    is_right: bool

    def __str__(self) -> str:
        code = "-" if self.exit_code is None else self.exit_code
        return f"{code:>4} {self.seconds:>5.1f} s {'' if self.is_right else '!'}{self.said}"


def by_torchrun(case: Case, layout: Layout, home: Path, options: argparse.Namespace) -> Cell:
    program = (*case.script, f"--timeout-s={options.timeout}")
    mark, began = uuid.uuid4().hex, time.monotonic()
    environ = sides.ENVIRON | {"DISTRUN_TEST_MARK": mark}
    screen = home / "screen"
    with screen.open("wb") as output:
        nodes = [
            subprocess.Popen(
                command,
                cwd=home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for command in torchrun(layout, home / "logs", program)
        ]
        code = first_code(nodes, began + LIMIT_S)
    seconds = time.monotonic() - began
    for pid in marked_processes(mark):  # torchrun leaves grandchildren, and ranks that hang
        kill(pid)
    for node in nodes:
        node.wait()
    ranks = ranks_blamed_by_torchrun(screen.read_text(errors="replace"))
    said = f"rank {ranks[0]}" if ranks else "ended well" if code == 0 else "nobody"
    if case.ends == "well":
        return Cell(code, seconds, said, code == 0)
    return Cell(code, seconds, said, bool(ranks) and ranks[0] in case.culprits)


def first_code(nodes: list[subprocess.Popen[bytes]], deadline: float) -> int | None:
    """Wait for all nodes; return the first exit code that is not 0, None past the deadline."""
    codes = []
    for node in nodes:
        try:
            codes.append(node.wait(max(deadline - time.monotonic(), 0.1)))
        except subprocess.TimeoutExpired:
            return next(filter(None, codes), None)
    return next(filter(None, codes), 0)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended in between


def by_distrun(case: Case, layout: Layout, home: Path, options: argparse.Namespace) -> Cell:
    ended = launched(case, layout, home, hang_timeout_s=options.hang_timeout)
    wrong = wrong_with(case, ended)
    waited = [f"waited {ended.waited_s:.1f} s"] if ended.waited_s is not None else []
    said = "; ".join([ended.named, *waited, *wrong])
    return Cell(ended.exit_code, ended.seconds, said, not wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by", default="torchrun,distrun")
    parser.add_argument("--only", default="")
    parser.add_argument("--layouts", default="1x4,2x2")
    parser.add_argument("--hang-timeout", type=float, default=3)
    parser.add_argument("--timeout", type=float, default=10)
    parser.add_argument("--keep", default="")
    options = parser.parse_args()
    sides_of = {"torchrun": by_torchrun, "distrun": by_distrun}
    launchers = options.by.split(",")
    wanted = set(filter(None, options.only.split(",")))
    cases = [case for case in CASES if not wanted or {case.id, case.fault} & wanted]
    right = dict.fromkeys(launchers, 0)
    total = 0
    for case, layout in itertools.product(cases, options.layouts.split(",")):
        print(f"{case.id} on {layout}", flush=True)
        total += 1
        for by in launchers:
            home = Path(tempfile.mkdtemp(prefix="distrun-bench-"))
            cell = sides_of[by](case, LAYOUTS[layout], home, options)
            if options.keep and not cell.is_right:
                shutil.move(home, Path(options.keep) / f"{case.id}-{layout}-{by}")
            shutil.rmtree(home, ignore_errors=True)
            right[by] += cell.is_right
            print(f"  {by:<9} {cell}", flush=True)
    for by, count in right.items():
        print(f"{by}: {count} of {total} right")
    return int("distrun" in right and right["distrun"] < total)


if __name__ == "__main__":
    sys.exit(main())
