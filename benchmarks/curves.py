"""Draws the loss of every layout against that of one process: they lie on one another.

    python -m benchmarks.curves [recipes/curves.svg]

Needs the extra `plot`. The numbers are those of `distrun verify single --strategy … --json`, in
float32: what differs is rounding, which training makes grow.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import accumulate
from typing import Any

import matplotlib
from matplotlib.figure import Figure

STEPS = 60
LAYOUTS = (
    *("ddp 2", "zero1 2", "fsdp 2", "hsdp 2x2", "tp 2", "fsdp 2 x tp 2"),
    *("pp 2", "cp 2"),
)
COLOURS = [f"C{number}" for number in range(10) if number != 7]  # without grey
INK = "#808890"  # of text and lines: readable on white and on black

Rows = list[dict[str, Any]]


def verified() -> Rows:
    """Train all layouts; return the reference and the layouts as `distrun verify` tells them."""
    command = [
        *(sys.executable, "-m", "distrun", "verify", "single", "--json"),
        *("--strategy", ",".join(LAYOUTS), "--steps", str(STEPS)),
        *("--tolerance", "1"),  # the picture shows how far they are
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return list(json.loads(done.stdout)["rows"])


def draw(rows: Rows, path: str) -> None:
    """Draw the losses, and below them how far each has been from the reference."""
    figure = Figure(figsize=(7.6, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    reference, *layouts = rows
    steps = reference["steps"]
    above.plot(
        steps, reference["losses"], color=INK, alpha=0.45, linewidth=7, label="single: one process"
    )
    for number, (row, colour) in enumerate(zip(layouts, COLOURS, strict=False)):
        # they hide one another: each shows its dot at steps of its own
        dots = {"marker": "o", "markersize": 4.5, "markevery": (number, len(layouts))}
        above.plot(steps, row["losses"], color=colour, linewidth=0.8, label=row["layout"], **dots)
    for row, colour in zip(layouts, COLOURS, strict=False):
        far = map(abs, map(float.__sub__, row["losses"], reference["losses"]))
        below.plot(steps, [x or None for x in accumulate(far, max)], color=colour)
    below.set(yscale="log", ylim=(1e-8, 1e-3), xlabel="step")
    below.set_ylabel("largest difference\nfrom single so far")
    above.set(ylabel="training loss (nats a byte)", xlim=(0, STEPS + 1))
    above.legend(frameon=False, ncols=2)
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None} if path.endswith("svg") else {})


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "recipes/curves.svg"
    for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        matplotlib.rcParams[name] = INK
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "curves"  # equal numbers make an equal file
    draw(verified(), path)


if __name__ == "__main__":
    main()
