"""Prove that layouts train alike: the same losses as one rank, step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distrun.api.launch import Prepared, prepare
from distrun.api.recipes import script_of
from distrun.errors import UsageError, did_you_mean
from distrun.spec import read

LIMITS = {"float32": 1e-5, "float64": 1e-12}
"""Precision -> by how much a loss may differ; sums in another order differ by less."""


@dataclass(frozen=True)
class Trial:
    """One training: a layout, or the reference that layouts are compared with."""

    name: str
    script: Path
    ranks: int
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Layouts that have to train as one reference does."""

    reference: Trial
    layouts: tuple[Trial, ...]


@dataclass(frozen=True)
class Curve:
    """What a training logged, by step."""

    losses: Mapping[int, float]
    grad_norms: Mapping[int, float]
    """Empty where the script logs none."""


@dataclass(frozen=True)
class Verdict:
    """How a layout compares with its reference."""

    difference: float
    """The largest of the losses; infinite if one has a step that the other lacks."""
    at_step: int
    norm_difference: float | None
    """Of the first step's gradient norm, relative; None where none is logged."""
    tolerance: float

    @property
    def loss_is_equal(self) -> bool:
        """Say whether all losses are within the tolerance; NaN is not."""
        return self.difference <= self.tolerance

    @property
    def norm_is_equal(self) -> bool:
        """Say whether the first gradient is too: Adam hides a factor from the loss."""
        return self.norm_difference is None or self.norm_difference <= self.tolerance

    @property
    def equal(self) -> bool:
        """Say whether it trains as its reference does."""
        return self.loss_is_equal and self.norm_is_equal


def groups_of(words: Sequence[str], strategy: str | None) -> list[Group]:
    """Return what to compare.

    Args:
        words: Names of recipes, or paths of scripts.
        strategy: Names of layouts, or their first words, separated by commas; `all`: also those
            of the scripts beside them that have the same reference; None: the scripts' own.

    Raises:
        UsageError: A script or a layout is not there.
    """
    groups: dict[Trial, dict[Trial, None]] = {}
    for word in words:
        script = script_of(word)
        reference = _reference(script)
        layouts = groups.setdefault(reference, {})
        layouts |= dict.fromkeys(_chosen(script, reference, strategy))
    return [Group(reference, tuple(layouts)) for reference, layouts in groups.items()]


def _reference(script: Path) -> Trial:
    verify = read.recipe_header(script).verify
    beside = script.with_name(f"{verify.reference}.py")
    if verify.reference is not None and beside.is_file():
        return Trial(verify.reference, beside, 1)
    if not verify.layouts:
        return Trial(script.stem, script, 1)  # it may be the reference of others
    return Trial(f"{script.stem}, one rank", script, 1, verify.alone)


def _chosen(script: Path, reference: Trial, strategy: str | None) -> list[Trial]:
    own = _layouts(script)
    everywhere = own if strategy is None else own + _beside(script, reference)
    if not everywhere:
        raise UsageError(
            f"{script.name} lists no layouts to compare",
            "a table [tool.distrun.verify.layouts] in its header, or --strategy all",
        )
    if strategy is None or strategy == "all":
        return everywhere
    is_one = any(trial.name == strategy for trial in everywhere)  # which may hold a comma
    names = [strategy] if is_one else strategy.split(",")
    return [trial for name in names for trial in _named(name, own, everywhere)]


def _named(name: str, own: Sequence[Trial], everywhere: Sequence[Trial]) -> list[Trial]:
    """Return the layouts called `name`, or whose first word it is; the script's own, if any."""
    for trials in (own, everywhere):
        for length in (None, 1):
            if found := [each for each in trials if each.name.split()[:length] == name.split()]:
                return found
    known = dict.fromkeys(trial.name for trial in everywhere)
    raise UsageError(f"--strategy {name!r} is no layout", did_you_mean(name, known))


def _layouts(script: Path) -> list[Trial]:
    layouts = read.recipe_header(script).verify.layouts
    return [Trial(name, script, each.ranks, each.args) for name, each in layouts.items()]


def _beside(script: Path, reference: Trial) -> list[Trial]:
    others = sorted(path for path in script.parent.glob("*.py") if path != script)
    return [trial for path in others if _reference(path) == reference for trial in _layouts(path)]


def prepare_trial(
    trial: Trial,
    *,
    steps: int,
    precision: str,
    runs_dir: Path,
    config: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Plan the job of one training, on this machine.

    Args:
        trial: What trains, and on how many ranks.
        steps: How many.
        precision: Of its arithmetic.
        runs_dir: Where to record it.
        config: The file named with `--config`.
        tell: Gets a line on which config files were read, and on each that was not.

    Raises:
        UsageError: The script cannot run, or not on these ranks.
        MachineError: The machine lacks something.
    """
    words = [
        *("--steps", str(steps), "--precision", precision, "--no-save", "--resume", "none"),
        *("--eval-every", "0", "--deterministic", "--log-every", str(steps)),
    ]
    flags = {
        "script": str(trial.script),
        "args": (*trial.args, *words),
        "nodes": "1",
        "nproc_per_node": str(trial.ranks),
        "runs_dir": str(runs_dir),
        "check": False,  # what is proved is arithmetic: the machine may be a poor one
    }
    return prepare(*read.job(flags, config, tell))


def curve_of(trial: Trial, run_dir: Path) -> Curve:
    """Read what a training logged.

    Raises:
        UsageError: It logged no loss.
    """
    losses: dict[int, float] = {}
    norms: dict[int, float] = {}
    try:
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in map(json.loads, lines):
        for name, found in (("loss", losses), ("grad_norm", norms)):
            if name in line:
                found[int(line["step"])] = float(line[name])  # "nan" is how JSON writes NaN
    if not losses:
        raise UsageError(
            f"{trial.script.name} logged no loss on {_ranks(trial.ranks)}: there is nothing to"
            " compare",
            "distrun.train.metrics.log(step, loss=…) on rank 0, in each step",
        )
    return Curve(losses, norms)


def _ranks(count: int) -> str:
    return f"{count} ranks" if count > 1 else "1 rank"


def compare(reference: Curve, layout: Curve, tolerance: float) -> Verdict:
    """Compare a layout's curve with its reference's."""
    worst, at_step = 0.0, min(reference.losses)
    for step in sorted(reference.losses.keys() | layout.losses.keys()):
        difference = _difference(reference.losses.get(step), layout.losses.get(step))
        if not difference <= worst:  # written so that NaN is the worst
            worst, at_step = difference, step
        if math.isnan(worst):
            break
    norm = None
    first = min(reference.losses)
    if first in reference.grad_norms:
        before = reference.grad_norms[first]
        norm = _difference(before, layout.grad_norms.get(first)) / (abs(before) or 1.0)
    return Verdict(worst, at_step, norm, tolerance)


def _difference(a: float | None, b: float | None) -> float:
    return math.inf if a is None or b is None else abs(a - b)
