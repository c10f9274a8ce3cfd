"""What the supervisor and the launcher take while 8 ranks train: memory and a core's share.

    python -m benchmarks.footprint [--seconds 20]

Each rank prints 2 lines a second; rank 0 logs 20 steps a second to `metrics.jsonl` and
the console. Torchrun's agent, which imports torch, is measured in the same run.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks import sides

WORKER = """
import os, sys, time
from distrun.train import metrics

for step in range(1, int(sys.argv[1]) * 20 + 1):
    time.sleep(0.05)
    if step % 10 == 0:
        print("step", step)
    if os.environ["RANK"] == "0":
        metrics.log(step, loss=1 / step)
"""


def measured(command: list[str], cwd: Path, seconds: float) -> dict[str, tuple[float, float]]:
    """Return (RSS in MiB, percent of a core) of the processes above the ranks."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=sides.ENVIRON,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds / 4)  # past the start
    top = psutil.Process(process.pid)
    above = {"launcher": top}
    for child in top.children(recursive=True):
        if "supervise" in " ".join(child.cmdline()):
            above["supervisor"] = child
    began = {name: (time.time(), sum(p.cpu_times()[:2])) for name, p in above.items()}
    time.sleep(seconds / 2)
    found = {}
    for name, p in above.items():
        then, cpu_s = began[name]
        share = 100 * (sum(p.cpu_times()[:2]) - cpu_s) / (time.time() - then)
        found[name] = (p.memory_info().rss / 2**20, share)
    process.wait(timeout=seconds + 60)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    seconds = parser.parse_args().seconds
    _, home = sides.run_in_temp(["true"])
    script = home / "worker.py"
    script.write_text(WORKER)
    for name, side in (("distrun", sides.distrun), ("torchrun", sides.torchrun)):
        rows = measured(side(8, str(script), str(seconds)), home, seconds)
        for process, (mib, percent) in rows.items():
            print(f"{name:9} {process:11} {mib:6.1f} MiB  {percent:5.2f} % of a core")
    print("goal: supervisor below 40 MiB and 1 % of a core", file=sys.stdout)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
