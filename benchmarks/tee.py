"""100 MB on one rank's stdout: distrun's files and console against `torchrun --tee 3`.

    python -m benchmarks.tee [--pairs 5]

Both write every rank's output to a file and to a console, here a pipe that is read as
fast as `cat` reads. The supervisor's peak memory is told too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

from benchmarks import sides

MEGABYTES = 100
WORKER = """
import sys
line = "step 123456  loss 0.123456  " + "more words " * 7 + chr(10)
for _ in range(int(sys.argv[1]) * 1_000_000 // len(line) + 1):
    sys.stdout.write(line)
"""


def run_s(command: list[str], cwd: Path) -> tuple[float, float]:
    """Run with a console that `cat` reads; return seconds, and the supervisor's peak in MiB.

    The directory is removed, so that no run pays for writing out the one before.
    """
    cwd.mkdir()
    peaks = [0.0]
    began = time.perf_counter()
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" | cat > console', "sh", *command],
        cwd=cwd,
        env=sides.ENVIRON,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watcher = threading.Thread(target=_watch_supervisor, args=(process, cwd, peaks))
    watcher.start()
    process.wait()
    seconds = time.perf_counter() - began
    watcher.join()
    written = (cwd / "console").stat().st_size
    assert written > MEGABYTES * 1_000_000, written
    shutil.rmtree(cwd)
    os.sync()
    return seconds, max(peaks)


def _watch_supervisor(process: subprocess.Popen[bytes], cwd: Path, peaks: list[float]) -> None:
    while process.poll() is None:
        for record in cwd.glob("runs/*/run.json"):
            peaks.append(_peak_mib(json.loads(record.read_text())["supervisor_pid"]))
        time.sleep(0.2)


def _peak_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(next(x for x in text.splitlines() if x.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    _, home = sides.run_in_temp(["true"])
    script = home / "spam.py"
    script.write_text(WORKER)
    words = (str(script), str(MEGABYTES))
    ours, theirs, peak = [], [], 0.0
    for _ in range(pairs):
        tee = ("--tee", "3", "--log-dir", "logs", *words)
        theirs.append(run_s(sides.torchrun(1, *tee), home / "torchrun")[0])
        seconds, peak_mib = run_s(sides.distrun(1, *words), home / "distrun")
        ours.append(seconds)
        peak = max(peak, peak_mib)
    sides.report(f"{MEGABYTES} MB of output, 1 rank", ours, theirs, "1.00")
    print(f"  peak memory of the supervisor: {peak:.0f} MiB (goal 40)")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
