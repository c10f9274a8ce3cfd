"""Jobs that are slow and alive, under a hang watch: none of them may be stopped.

    python -m benchmarks.false_alarms [--slow-s 60] [--hang-timeout 20] [--jobs 3] [--only NAME,…]
                                      [--times 1]

All that tests/process/hang_cases.py lists as slow, in each style of training, on one node and on
two in turn; a rank that is stopped by a signal for `--slow-s`, below a limit of 1.5 times that; and
a person who sits in a debugger for as long. What is printed is the time that the ranks of each were
slow for, and each one that was stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.others.launches import Layout
from tests.process.hang_cases import DDP, SLOW, Case, case
from tests.process.hang_runs import launched, wrong_with
from tests.terminal import Terminal

LAYOUTS = (Layout(1, 4), Layout(2, 2))
TO_START_AND_END_S = 60.0
STOPPED = "one_is_stopped_shortly"
"""Four times, each for a fourth of the time that it is told."""
DEBUGGED = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 1:
    breakpoint()
dist.all_reduce(torch.ones(4))
"""


def slow(case: Case, layout: Layout, slow_s: float, hang_timeout_s: float) -> str:
    """Launch a slow job to its end; return what is wrong with that, "" if nothing is."""
    home = Path(tempfile.mkdtemp(prefix="distrun-bench-"))
    told = replace(case, words=(*case.words, "--slow-s", f"{slow_s:g}"))
    limit_s = slow_s * 4 + TO_START_AND_END_S
    ended = launched(told, layout, home, hang_timeout_s=hang_timeout_s, limit_s=limit_s)
    wrong = wrong_with(case, ended)
    if wrong:
        return f"{'; '.join(wrong)}, kept in {home}\n{ended.screen}"
    shutil.rmtree(home, ignore_errors=True)  # its report may still be written
    return ""


def debugged(slow_s: float, hang_timeout_s: float) -> str:
    """Sit at the prompt of a debugger, and go on."""
    home = Path(tempfile.mkdtemp(prefix="distrun-bench-"))
    (home / "train.py").write_text(DEBUGGED)
    words = [sys.executable, "-m", "distrun", "launch", "--no-check", "--debug-rank", "1"]
    words += ["--nproc-per-node", "4", f"--hang-timeout={hang_timeout_s}", "train.py"]
    terminal = Terminal(words, home)
    terminal.wait_for("(Pdb) ")
    time.sleep(slow_s)
    terminal.type("c\n")
    code = terminal.end()
    shutil.rmtree(home, ignore_errors=True)
    return f"exit code {code}\n{terminal.screen}" if code else ""


def jobs_of(slow_s: float, limit_s: float) -> dict[str, tuple[float, Callable[[], str]]]:
    """Return for how long each job is slow, and what runs it."""
    jobs: dict[str, tuple[float, Callable[[], str]]] = {
        case.id: (slow_s, partial(slow, case, LAYOUTS[n % 2], slow_s, limit_s))
        for n, case in enumerate(SLOW)
    }
    long_stop = case(STOPPED, DDP, 1, culprits=(), at="", op="", waits_at="", ends="well")
    stopped = partial(slow, long_stop, LAYOUTS[0], 4 * slow_s, 1.5 * slow_s)
    jobs["stopped-below-the-limit"] = (4 * slow_s, stopped)
    jobs["debugged"] = (slow_s, partial(debugged, slow_s, limit_s))
    return jobs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow-s", type=float, default=60)
    parser.add_argument("--hang-timeout", type=float, default=20)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    jobs = jobs_of(options.slow_s, options.hang_timeout)
    wrong, total_s = 0, 0.0
    with ThreadPoolExecutor(options.jobs) as pool:
        chosen = [
            (name, seconds, pool.submit(job))
            for name, (seconds, job) in jobs.items()
            for _ in range(options.times)
            if not wanted or {name, name.partition("-")[2]} & wanted
        ]
        for name, seconds, job in chosen:
            said = job.result()
            wrong += bool(said)
            total_s += seconds
            print(f"{name:<50} {seconds:>4.0f} s  {said or 'went on'}", flush=True)
    print(f"{len(chosen)} jobs, slow for {total_s / 60:.0f} minutes in total: {wrong} stopped")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
