"""100 MB on one rank's stdout: distrun's files and console against `torchrun --tee 3`.

    python -m benchmarks.tee [--pairs 3] [--megabytes 100]

Both write every rank's output to a file and to a console, here a pipe that is read as
fast as `cat` reads. The supervisor's and the launcher's peak memory is told too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks import sides

WORKER = """
import sys
line = "step 123456  loss 0.123456  " + "more words " * 7 + chr(10)
for _ in range(int(sys.argv[1]) * 1_000_000 // len(line)):
    sys.stdout.write(line)
"""


def run_s(command: list[str], cwd: Path) -> tuple[float, dict[str, float]]:
    """Run with a console that `cat` reads; return the seconds and peak MiB by process."""
    cwd.mkdir()
    began = time.time()
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" | cat > console', "sh", *command],
        cwd=cwd,
        env=sides.ENVIRON,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peaks: dict[str, float] = {}
    while process.poll() is None:
        for record in cwd.glob("runs/*/run.json"):
            pid = json.loads(record.read_text())["supervisor_pid"]
            peaks["supervisor"] = max(peaks.get("supervisor", 0), _peak_mib(pid))
        time.sleep(0.05)
    return time.time() - began, peaks


def _peak_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(next(x for x in text.splitlines() if x.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=100)
    args = parser.parse_args()
    _, home = sides.run_in_temp(["true"])
    script = home / "spam.py"
    script.write_text(WORKER)
    words = (str(script), str(args.megabytes))
    ours, theirs, peak = [], [], 0.0
    for number in range(args.pairs):
        log_dir = home / f"logs{number}"
        tee = ("--tee", "3", "--log-dir", str(log_dir), *words)
        theirs.append(run_s(sides.torchrun(1, *tee), home / f"torchrun{number}")[0])
        seconds, peaks = run_s(sides.distrun(1, *words), home / f"distrun{number}")
        ours.append(seconds)
        peak = max(peak, peaks.get("supervisor", 0.0))
        written = (home / f"distrun{number}" / "console").stat().st_size
        assert written > args.megabytes * 1_000_000, written
    sides.report(f"{args.megabytes} MB of output, 1 rank", ours, theirs, "1.00")
    print(f"  peak memory of the supervisor: {peak:.0f} MiB (goal 40)")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
