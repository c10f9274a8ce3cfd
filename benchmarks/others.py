"""How long the scripts of tests/others take: torchrun, warm ranks and cold ranks in turn.

    python -m benchmarks.others [--times 5] [--scripts ddp_short,cnn]

A script passes when no launch of ours is slower than torchrun's slowest one.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.others.launches import Script, launched
from tests.others.test_others import SCRIPTS

LAUNCHERS = ("torchrun", "warm", "cold")


def seconds_of(script: Script, times: int) -> dict[str, list[float]]:
    """Launch a script on one node, each launcher in turn; return the seconds of each launch."""
    seconds: dict[str, list[float]] = {by: [] for by in LAUNCHERS}
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as home:
        for number, by in itertools.product(range(times), LAUNCHERS):
            began = time.monotonic()
            launched(script, by, script.layouts[0], Path(home) / f"{by}-{number}")
            seconds[by].append(time.monotonic() - began)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--scripts", default="")
    options = parser.parse_args()
    wanted = set(filter(None, options.scripts.split(",")))
    slower = []
    print(f"{'median to slowest, in s':<24}" + "".join(f"{by:>16}" for by in LAUNCHERS))
    for script in SCRIPTS:
        if script.exit_code or (wanted and script.name not in wanted):
            continue
        seconds = seconds_of(script, options.times)
        cells = [
            f"{statistics.median(seconds[by]):.1f} to {max(seconds[by]):.1f}" for by in seconds
        ]
        print(f"{script.name:<24}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
        if max(seconds["warm"] + seconds["cold"]) > max(seconds["torchrun"]):
            slower.append(script.name)
    print(f"slower than torchrun's slowest: {', '.join(slower) or 'none'}")
    return int(bool(slower))


if __name__ == "__main__":
    sys.exit(main())
