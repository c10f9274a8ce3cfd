"""What `distrun estimate` predicts of training on this CPU, against what is measured.

    python -m benchmarks.estimate_cpu [--recipes ddp_gpt,fsdp,tp,zero1] [--steps 12]

Two ranks. bench-comm measures gloo: large messages are slower on a CPU. Of each recipe two runs of
other sizes calibrate, one that computes most of the time and one that communicates. Memory: what
rank 0 has resident beside its tensors, such as the interpreter, torch and gloo's buffers, as the
mean of both. Time: how much slower than predicted this machine computes, and moves data; gloo takes
the cores from the computation, so both times add up. Then two sizes are predicted and measured.
Goals: memory within 10 %, time within 25 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sides import ENVIRON
from distrun.api import calibration
from distrun.api.estimate import Asked, estimate

RECIPES = Path(__file__).parents[1] / "recipes"
FLAGS = {"tp": ("--no-tied",)}
SIZES = {
    "calibrate": (("124M", 256, 8), ("350M", 64, 4)),
    "predict": (("124M", 128, 8), ("350M", 128, 4)),
}
"""Size of the model, tokens of a sequence, sequences of a step."""
OPS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
NPROC = 2
MEMORY_GOAL, TIME_GOAL = 0.10, 0.25
MIB = 2**20


@dataclass(frozen=True)
class Pair:
    """One size, predicted and measured."""

    name: str
    nbytes: float
    """Predicted, of all tensors."""
    computing_s: float
    """Predicted: a step but for its traffic."""
    traffic_s: float
    """Predicted: the traffic of a step."""
    peak_nbytes: float
    """Measured, of the process."""
    step_s: float
    """Measured."""


def pair(recipe: str, size: tuple[str, int, int], steps: int, curves: Path) -> Pair:
    """Predict and measure one size."""
    model, seq_len, batch = size
    words = [
        *(str(RECIPES / f"{recipe}.py"), "--size", model, "--seq-len", str(seq_len)),
        *("--batch-size", str(batch), *FLAGS.get(recipe, ())),
    ]
    asked = Asked(words=tuple(words), gpus=f"{NPROC}:cpu", calibrate=curves)
    found = estimate(asked, with_remedies=False).found
    assert found.time is not None  # the kind is named
    more = ("--steps", str(steps), "--log-every", "1", "--eval-batches", "1", "--no-save")
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as home:
        distrun("launch", "--no-report", "--runs-dir", home, *words, *more, directory=Path(home))
        (run,) = (path for path in Path(home).iterdir() if (path / "run.json").is_file())
        step_s, nbytes = calibration.ran(run).step_s, peak_nbytes(run)
    time, name = found.time, f"{model}, {batch} x {seq_len}"
    computing_s, traffic_s = time.compute + time.optimizer, time.hidden + time.exposed
    return Pair(name, found.memory.allocated, computing_s, traffic_s, nbytes, step_s)


def measure_gloo(directory: Path) -> Path:
    """Return the report of bench-comm over the ranks."""
    report = directory / "gloo.json"
    words = ("--op", ",".join(OPS), "-n", "5", "-b", "1M", "-e", "256M", "-f", "4")
    distrun("bench-comm", *words, "-o", str(report), directory=directory)
    return report


def distrun(command: str, *words: str, directory: Path) -> None:
    """Run a command of distrun on the ranks, from a directory."""
    subprocess.run(
        [sys.executable, "-m", "distrun", command, "--nproc-per-node", str(NPROC), *words],
        cwd=directory,
        env=ENVIRON,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=900,
    )


def peak_nbytes(run: Path) -> int:
    """Return the largest resident size that rank 0 has logged."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return max(int(line["memory_nbytes"]) for line in map(json.loads, lines) if "loss" in line)


def scales(known: Sequence[Pair]) -> tuple[float, float]:
    """Return measured by predicted time of computation and of traffic, from two runs.

    One that would be negative is 0: then the other alone is fitted, to both.
    """
    one, two = known
    size = one.computing_s * two.traffic_s - two.computing_s * one.traffic_s
    computing = (one.step_s * two.traffic_s - two.step_s * one.traffic_s) / size if size else 0.0
    traffic = (two.step_s * one.computing_s - one.step_s * two.computing_s) / size if size else 0.0
    steps = one.step_s + two.step_s
    if traffic <= 0:
        return steps / (one.computing_s + two.computing_s), 0.0
    if computing <= 0:
        return 0.0, steps / (one.traffic_s + two.traffic_s)
    return computing, traffic


def compare(recipe: str, steps: int, curves: Path) -> bool:
    """Print the comparison of a recipe; return whether it is within the goals."""
    known = [pair(recipe, size, steps, curves) for size in SIZES["calibrate"]]
    beside = sum(each.peak_nbytes - each.nbytes for each in known) / len(known)
    computing, traffic = scales(known)
    for each in known:
        print(
            f"{recipe:8} {each.name:16} {each.peak_nbytes / MIB:6.0f} MiB"
            f" {each.step_s * 1e3:6.0f} ms calibrate; predicted {each.nbytes / MIB:.0f} MiB"
            f" + {beside / MIB:.0f} MiB, {each.computing_s * 1e3:.0f} ms"
            f" of computation x {computing:.2f}, {each.traffic_s * 1e3:.0f} ms of traffic"
            f" x {traffic:.2f}"
        )
    good = True
    for size in SIZES["predict"]:
        found = pair(recipe, size, steps, curves)
        nbytes = found.nbytes + beside
        step_s = computing * found.computing_s + traffic * found.traffic_s
        errors = nbytes / found.peak_nbytes - 1, step_s / found.step_s - 1
        good = good and abs(errors[0]) <= MEMORY_GOAL and abs(errors[1]) <= TIME_GOAL
        print(
            f"{recipe:8} {found.name:16}"
            f" memory {nbytes / MIB:6.0f} of {found.peak_nbytes / MIB:6.0f} MiB ({errors[0]:+.1%})"
            f"  step {step_s * 1e3:6.0f} of {found.step_s * 1e3:6.0f} ms ({errors[1]:+.1%})",
            flush=True,
        )
    return good


def main() -> int:
    """Compare; returns 1 if a prediction is beyond the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", default="ddp_gpt,fsdp,tp,zero1")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    print(f"predicted of measured, {NPROC} ranks; goals {MEMORY_GOAL:.0%} and {TIME_GOAL:.0%}")
    with tempfile.TemporaryDirectory(prefix="distrun-bench-") as name:
        curves = measure_gloo(Path(name))
        recipes = options.recipes.split(",")
        results = [compare(recipe, options.steps, curves) for recipe in recipes]
    print("all within the goals" if all(results) else "BEYOND the goals")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
