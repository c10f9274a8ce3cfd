"""Prove that layouts train alike: the same losses as one rank, step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distrun.api.prepare import Prepared, prepare
from distrun.api.recipes import script_of
from distrun.errors import UsageError, did_you_mean
from distrun.spec import read
from distrun.spec.fields import NodeRange
from distrun.spec.job import Layout, Verify

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
    """Empty where the script logs none, as those below."""
    validation: Mapping[int, float] = field(default_factory=dict)
    """Losses on data that is not trained on."""
    seen: Mapping[int, float] = field(default_factory=dict)
    """Samples, or tokens, of all ranks together."""


@dataclass(frozen=True)
class Comparison:
    """How a layout compares with its reference."""

    difference: float
    """The largest of the losses; infinite if one has a step that the other lacks."""
    at_step: int
    norm_difference: float | None
    """Of the first step's gradient norm, relative; None where none is logged."""
    tolerance: float
    validation_difference: float | None = None
    """The largest of the validation losses; None where the reference logs none."""
    seen: tuple[float, float] | None = None
    """What reference and layout have seen in the first step in which they differ; None: equal."""

    @property
    def loss_is_equal(self) -> bool:
        """Say whether all losses are within the tolerance; NaN is not."""
        return self.difference <= self.tolerance

    @property
    def norm_is_equal(self) -> bool:
        """Say whether the first gradient is too: Adam hides a factor from the loss."""
        return self.norm_difference is None or self.norm_difference <= self.tolerance

    @property
    def validation_is_equal(self) -> bool:
        """Say whether it evaluates as its reference does."""
        return self.validation_difference is None or self.validation_difference <= self.tolerance

    @property
    def equal(self) -> bool:
        """Say whether it trains as its reference does, on as much data."""
        alike = self.loss_is_equal and self.norm_is_equal and self.validation_is_equal
        return alike and self.seen is None


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
        for layout, reference in _chosen(script_of(word), strategy).items():
            groups.setdefault(reference, {})[layout] = None
    return [Group(reference, tuple(layouts)) for reference, layouts in groups.items()]


def _reference(script: Path, verify: Verify, layout: Layout) -> Trial:
    """Return the one rank that a layout is compared with."""
    beside = script.with_name(f"{verify.reference}.py")
    if verify.reference is not None and beside.is_file():
        return Trial(verify.reference, beside, 1, (*verify.args, *(layout.alone or ())))
    alone = verify.alone if layout.alone is None else layout.alone
    name = " ".join((f"{script.stem}, one rank", *(layout.alone or ())))
    return Trial(name, script, 1, (*alone, *verify.args))


def _chosen(script: Path, strategy: str | None) -> dict[Trial, Trial]:
    """Return layouts, each with its reference."""
    own = _layouts(script)
    everywhere = own if strategy is None else own | _beside(script)
    if not everywhere:
        raise UsageError(
            f"{script.name} lists no layouts to compare",
            "a table [tool.distrun.verify.layouts] in its header, or --strategy all",
        )
    if strategy is None or strategy == "all":
        return everywhere
    is_one = any(trial.name == strategy for trial in everywhere)  # which may hold a comma
    names = [strategy] if is_one else strategy.split(",")
    chosen = [trial for name in names for trial in _named(name, [*own], [*everywhere])]
    return {trial: everywhere[trial] for trial in chosen}


def _named(name: str, own: Sequence[Trial], everywhere: Sequence[Trial]) -> list[Trial]:
    """Return the layouts called `name`, or whose first word it is; the script's own, if any."""
    for trials in (own, everywhere):
        for length in (None, 1):
            if found := [each for each in trials if each.name.split()[:length] == name.split()]:
                return found
    known = dict.fromkeys(trial.name for trial in everywhere)
    raise UsageError(f"--strategy {name!r} is no layout", did_you_mean(name, known))


def _layouts(script: Path) -> dict[Trial, Trial]:
    verify = read.recipe_header(script).verify
    return {
        Trial(name, script, each.ranks, (*verify.args, *each.args)): _reference(
            script, verify, each
        )
        for name, each in verify.layouts.items()
    }


def _beside(script: Path) -> dict[Trial, Trial]:
    """Return the layouts of the scripts beside one that have the same reference, or have it."""
    references = {reference.script for reference in _layouts(script).values()} or {script}
    others = sorted(path for path in script.parent.glob("*.py") if path != script)
    return {
        trial: reference
        for path in others
        for trial, reference in _layouts(path).items()
        if reference.script in references
    }


def prepare_trial(
    trial: Trial,
    *,
    steps: int,
    precision: str,
    runs_dir: Path,
    config: Path | None = None,
    where: Mapping[str, Any] = MappingProxyType({}),
    tell: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Plan the job of one training, on this machine or over as many hosts as divide its ranks.

    Args:
        trial: What trains, and on how many ranks.
        steps: How many.
        precision: Of its arithmetic.
        runs_dir: Where to record it.
        config: The file named with `--config`.
        where: Flags of `launch` that name machines.
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
        "report": False,
        "check": False,  # what is proved is arithmetic: the machine may be a poor one
        **where,
    }
    job, sources, header = read.job(flags, config, tell)
    nnodes = max(n for n in range(1, max(1, len(job.hosts)) + 1) if trial.ranks % n == 0)
    layout = {"nodes": NodeRange(nnodes, nnodes), "nproc_per_node": trial.ranks // nnodes}
    prepared = prepare(job.model_copy(update=layout), sources, header, tell=tell)
    prepared.agents.close()  # all trials are prepared before the first one starts
    return prepared


def curve_of(trial: Trial, run_dir: Path) -> Curve:
    """Read what a training logged.

    Raises:
        UsageError: It logged no loss.
    """
    losses: dict[int, float] = {}
    norms: dict[int, float] = {}
    validation: dict[int, float] = {}
    seen: dict[int, float] = {}
    curve = Curve(losses, norms, validation, seen)
    kept = {"loss": losses, "grad_norm": norms, "validation_loss": validation}
    kept |= {"tokens": seen, "samples": seen}
    try:
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in map(json.loads, lines):
        for name, found in kept.items():
            if name in line:
                found[int(line["step"])] = float(line[name])  # "nan" is how JSON writes NaN
    if not losses:
        raise UsageError(
            f"{trial.script.name} logged no loss on {_ranks(trial.ranks)}: there is nothing to"
            " compare",
            "distrun.train.metrics.log(step, loss=…) on rank 0, in each step",
        )
    return curve


def _ranks(count: int) -> str:
    return f"{count} ranks" if count > 1 else "1 rank"


def compare(reference: Curve, layout: Curve, tolerance: float) -> Comparison:
    """Compare a layout's curve with its reference's."""
    worst, at_step = _worst(reference.losses, layout.losses)
    norm = validation = seen = None
    first = min(reference.losses)
    if first in reference.grad_norms:
        before = reference.grad_norms[first]
        norm = _difference(before, layout.grad_norms.get(first)) / (abs(before) or 1.0)
    if reference.validation:
        validation, _ = _worst(reference.validation, layout.validation)
    for step in sorted(reference.seen.keys() & layout.seen.keys()):
        if not math.isclose(a := reference.seen[step], b := layout.seen[step]):
            seen = (a, b)
            break
    return Comparison(worst, at_step, norm, tolerance, validation, seen)


def _worst(reference: Mapping[int, float], layout: Mapping[int, float]) -> tuple[float, int]:
    """Return the largest difference, and the step of it."""
    worst, at_step = 0.0, min(reference)
    for step in sorted(reference.keys() | layout.keys()):
        difference = _difference(reference.get(step), layout.get(step))
        if not difference <= worst:  # written so that NaN is the worst
            worst, at_step = difference, step
        if math.isnan(worst):
            break
    return worst, at_step


def _difference(a: float | None, b: float | None) -> float:
    return math.inf if a is None or b is None else abs(a - b)
