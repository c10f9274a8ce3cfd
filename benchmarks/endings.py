"""How scripts end: hangs and aborts on the way out, for warm and cold ranks and torchrun.

    python -m benchmarks.endings [--ends 5] [--ranks 1,2,4] [--by warm,cold,torchrun]
                                 [--kinds local,never] [--hang-s 60]

Each launch trains a DDP model for three steps on gloo and then ends. The kinds differ in where
the script keeps the model and the process group, in when it destroys the group, and in what
gloo still has at the end. The launchers take turns. All kinds, launchers and numbers of ranks
are 405 launches for each of `--ends`.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import sides

KEPT_IN = ("local", "global", "closure", "cycle")
DESTROYED = ("before", "after", "never")
"""When the process group is destroyed: before the model is let go, after it, or never."""
LEFT = ("nothing", "subgroup", "own-group", "handle", "threads")
"""What gloo has left at the end: a second group, which is the model's own or not; an async handle
that nobody has waited for; or a work of which only gloo's threads know."""
TOLD = re.compile(r"terminate called|what\(\):|exitcode  :|FAILED:|\w*Error: ")
"""What is worth a line of what a launch that failed has printed."""
SCRIPT = """
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def train(left):
    dist.init_process_group("gloo")
    group = dist.new_group() if left == "own-group" else None
    model = DistributedDataParallel(torch.nn.Linear(64, 64), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 64)).sum().backward()
        optimizer.step()
    kept = [model, group or dist.group.WORLD]
    if left == "subgroup":
        kept.append(dist.new_group())
        dist.all_reduce(torch.ones(8), group=kept[-1])
    elif left == "handle":
        kept.append(dist.all_reduce(torch.ones(1 << 16), async_op=True))
    elif left == "threads":
        dist.all_reduce(torch.ones(1 << 16), async_op=True)
    return kept


def main(kept_in, destroyed, left):
    kept = train(left)
    if kept_in == "global":
        globals()["everything"] = kept
    elif kept_in == "closure":
        globals()["everything"] = lambda: kept
    elif kept_in == "cycle":
        kept.append(kept)
    if destroyed == "before":
        dist.destroy_process_group()


main(*sys.argv[1:])
if sys.argv[2] == "after":
    globals().pop("everything", None)
    dist.destroy_process_group()
"""


@dataclass(frozen=True)
class Kind:
    """One way to end."""

    kept_in: str
    destroyed: str
    left: str

    @property
    def words(self) -> tuple[str, str, str]:
        return (self.kept_in, self.destroyed, self.left)

    def __str__(self) -> str:
        return " ".join(self.words)


KINDS = [Kind(*words) for words in itertools.product(KEPT_IN, DESTROYED, LEFT)]


@dataclass
class Ends:
    """What came of some launches."""

    seconds: list[float] = field(default_factory=list)
    hangs: int = 0
    aborts: int = 0
    words: set[str] = field(default_factory=set)
    """What those that aborted have told."""

    def add(self, other: Ends) -> None:
        self.seconds += other.seconds
        self.hangs += other.hangs
        self.aborts += other.aborts
        self.words |= other.words

    def __str__(self) -> str:
        count = len(self.seconds)
        median_s = statistics.median(self.seconds)
        return f"{count:>4} {self.hangs:>5} {self.aborts:>6} {median_s:>6.1f} s"


def command(by: str, ranks: int, script: Path, kind: Kind) -> list[str]:
    words = (str(script), *kind.words)
    if by == "torchrun":
        return sides.torchrun(ranks, *words)
    method = {"warm": "forkserver", "cold": "spawn"}[by]
    return sides.distrun(ranks, "--start-method", method, *words)


def kill_all(process: psutil.Popen) -> None:
    """Kill the launcher and all that it has started."""
    for each in [*process.children(recursive=True), process]:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass  # it died with its parent
    process.wait()


def end_once(words: Sequence[str], cwd: Path, hang_s: float) -> Ends:
    """Launch once, to its end or until it counts as a hang."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = psutil.Popen(
            words,
            cwd=cwd,
            env=sides.ENVIRON,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(timeout=hang_s)
        except psutil.TimeoutExpired:
            kill_all(process)
            return Ends([hang_s], hangs=1)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    told = {line.strip() for line in printed.splitlines() if TOLD.search(line)}
    return Ends([time.monotonic() - began], aborts=int(code != 0), words=told if code else set())


def chosen(words: str) -> list[Kind]:
    """Return the kinds that have all of these words, such as `local,never`."""
    wanted = set(filter(None, words.split(",")))
    return [kind for kind in KINDS if wanted <= set(kind.words)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ends", type=int, default=5)
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--by", default="warm,cold,torchrun")
    parser.add_argument("--kinds", default="")
    parser.add_argument("--hang-s", type=float, default=60, help="three steps take some 2 s")
    options = parser.parse_args()
    launchers = options.by.split(",")
    totals: dict[tuple[str, int], Ends] = defaultdict(Ends)
    print(f"{'kept in, destroyed, left':<27} ranks  launcher  ends hangs aborts  median")
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as home:
        script = Path(home) / "script.py"
        script.write_text(SCRIPT)
        for kind, ranks in itertools.product(
            chosen(options.kinds), map(int, options.ranks.split(","))
        ):
            found = {by: Ends() for by in launchers}
            for _, by in itertools.product(range(options.ends), launchers):
                words = command(by, ranks, script, kind)
                found[by].add(end_once(words, Path(home), options.hang_s))
            for by, ends in found.items():
                print(f"{kind!s:<27} {ranks:>5}  {by:<8} {ends}", flush=True)
                totals[by, ranks].add(ends)
    for (by, ranks), ends in sorted(totals.items()):
        print(f"{'all of them':<27} {ranks:>5}  {by:<8} {ends}")
        for line in sorted(ends.words):
            print(f"  {line}")
    return int(
        any(ends.hangs + ends.aborts for (by, _), ends in totals.items() if by != "torchrun")
    )


if __name__ == "__main__":
    sys.exit(main())
