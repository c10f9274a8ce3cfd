"""Ten bugs, each in a copy of a recipe: `python -m tests.recipes.planted` verifies every copy.

Run by hand, for it takes minutes. A bug is found if `distrun verify` ends with 1 and calls the
layout off; a copy that crashes counts as not found.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.recipes.launching import RECIPES, environment


class Bug(NamedTuple):
    """A change of one line."""

    recipe: str
    layout: str
    right: str
    wrong: str


HALF = " / config.accumulate\n"
SCALED = "                    scaler.scale(micro_loss).backward()\n"
BUGS = {
    "accumulation is not divided": Bug("fsdp", "fsdp 2, 2 micro-batches", HALF, "\n"),
    "accumulation is not divided, tp": Bug("tp", "tp 2, 2 micro-batches", HALF, "\n"),
    "gradients are never reduced": Bug(
        "zero1",
        "zero1 2, 2 micro-batches",
        "with contextlib.nullcontext() if last else model.no_sync():",
        "with model.no_sync():",
    ),
    "every rank takes the whole batch": Bug(
        "fsdp", "fsdp 2", "shard = Shard(place.rank, place.world_size)", "shard = Shard()"
    ),
    "every rank takes the first part": Bug(
        "zero1", "zero1 2", "Shard(mesh[\"data\"].get_local_rank(), ", "Shard(0, "
    ),
    "the rate is halved after the warm-up": Bug(
        "ddp_gpt",
        "ddp 2",
        "            optim.set_learning_rate(optimizer, rate)\n",
        "            rate = rate / (1 + (step >= config.warmup_steps))\n"
        "            optim.set_learning_rate(optimizer, rate)\n",
    ),
    "one validation batch is left out": Bug(
        "fsdp",
        "fsdp 2",
        "    for step in range(config.eval_batches):\n",
        "    for step in range(config.eval_batches - 1):\n",
    ),
    "gradients are summed and not averaged": Bug(
        "moe",
        "ep 2",
        "own.register_hook(lambda grad: grad / ep.size())",
        "pass",
    ),
    "norms and biases decay too": Bug(
        "cp",
        "cp 2",
        "    groups = decay_groups(model, config.weight_decay)\n",
        "    groups = [{'params': list(model.parameters()), 'weight_decay': 0.1}]\n",
    ),
    "each rank clips by its own norm": Bug(
        "fsdp_tp",
        "fsdp 2 x tp 2",
        "norm = optim.clip_grad_norm(model.parameters(), config.clip)",
        "norm = optim.clip_grad_norm(model.parameters(), config.clip * (1 + place.rank))",
    ),
}  # fmt: skip


def planted(bug: Bug, directory: Path) -> Path:
    """Write the copy with the bug, and all beside it."""
    for file in RECIPES.iterdir():
        if file.is_file():
            shutil.copy(file, directory)
    source = (RECIPES / f"{bug.recipe}.py").read_text()
    assert source.count(bug.right) == 1, f"{bug.recipe}.py has {bug.right!r} not once"
    copy = directory / "mine.py"
    copy.write_text(source.replace(bug.right, bug.wrong))
    return copy


def verify(bug: Bug, directory: Path) -> tuple[bool, str]:
    """Return whether it is found, and what verify says of the layout."""
    copy = planted(bug, directory)
    words = ("verify", copy, "--strategy", bug.layout, "--steps", "10", "--json")
    run = subprocess.run(
        [sys.executable, "-m", "distrun", *words],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    if not run.stdout:
        return False, run.stderr[-300:]
    row = json.loads(run.stdout)["rows"][-1]
    said = {key: row[key] for key in ("max_difference", "norm_difference")}
    said |= {key: row[key] for key in ("validation_difference", "seen")}
    return run.returncode == 1 and bool(row["losses"]) and not row["equal"], str(said)


def main() -> None:
    found = 0
    for name, bug in BUGS.items():
        with tempfile.TemporaryDirectory() as directory:
            is_found, said = verify(bug, Path(directory))
        found += is_found
        print(f"{'found' if is_found else 'MISSED'}: {name}: {said}", flush=True)
    print(f"{found} of {len(BUGS)}")
    sys.exit(found < len(BUGS))


if __name__ == "__main__":
    main()
