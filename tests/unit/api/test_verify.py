"""Which layouts are compared, and when they are equal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from distrun.api.verify import Curve, Trial, compare, curve_of, groups_of
from distrun.errors import UsageError

SINGLE, TP, FSDP, LONE = "single.py", "tp.py", "fsdp.py", "lone.py"


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four scripts: a reference, two that are compared with it, and one that stands alone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / SINGLE).write_text("")
    script(TP, 'reference = "single"\nalone = ["--tp", "1"]', '"tp 2" = {ranks = 2}')
    script(
        *(FSDP, 'reference = "single"', '"fsdp 2" = {ranks = 2}'),
        *('"fsdp 2, ZeRO-2" = {ranks = 2, args = ["--no-reshard"]}', '"hsdp 2x2" = {ranks = 4}'),
    )
    script(LONE, 'alone = ["--ep", "1"]', '"ep 2" = {ranks = 2}', '"fsdp 2" = {ranks = 2}')
    return tmp_path


def script(name: str, verify: str, *layouts: str) -> None:
    lines = ["[tool.distrun.verify]", *verify.split("\n"), "[tool.distrun.verify.layouts]"]
    block = "".join(f"# {line}\n" for line in (*lines, *layouts))
    Path(name).write_text(f"# /// script\n{block}# ///\n")


def chosen(words: list[str], strategy: str | None = None) -> list[tuple[str, list[str]]]:
    return [
        (group.reference.name, [f"{t.script.stem}: {t.name}" for t in group.layouts])
        for group in groups_of(words, strategy)
    ]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize(
    ("words", "strategy", "layouts"),
    [
        ([FSDP], None, ["fsdp: fsdp 2", "fsdp: fsdp 2, ZeRO-2", "fsdp: hsdp 2x2"]),
        ([FSDP], "hsdp 2x2", ["fsdp: hsdp 2x2"]),
        ([FSDP], "hsdp", ["fsdp: hsdp 2x2"]),
        ([FSDP], "fsdp 2, ZeRO-2", ["fsdp: fsdp 2, ZeRO-2"]),
        ([FSDP], "fsdp 2", ["fsdp: fsdp 2"]),
        ([FSDP], "hsdp, tp", ["fsdp: hsdp 2x2", "tp: tp 2"]),
        ([TP], "tp,tp,tp 2", ["tp: tp 2"]),
        ([TP], "hsdp", ["fsdp: hsdp 2x2"]),
        ([SINGLE], "tp", ["tp: tp 2"]),
        ([TP, FSDP], "all", ["tp: tp 2", "fsdp: fsdp 2", "fsdp: fsdp 2, ZeRO-2", "fsdp: hsdp 2x2"]),
    ],
)
def test_layouts_are_the_scripts_own_or_those_of_its_siblings(
    words: list[str], strategy: str | None, layouts: list[str]
) -> None:
    assert chosen(words, strategy) == [("single", layouts)]


@pytest.mark.usefixtures("scripts")
def test_all_takes_those_of_the_same_reference_only() -> None:
    everything = chosen([TP, LONE], "all")
    assert [name for name, _ in everything] == ["single", "lone, one rank"]
    assert everything[1][1] == ["lone: ep 2", "lone: fsdp 2"]


@pytest.mark.usefixtures("scripts")
def test_the_reference_itself_may_be_asked_for_all() -> None:
    assert chosen([SINGLE], "all") == [
        ("single", ["fsdp: fsdp 2", "fsdp: fsdp 2, ZeRO-2", "fsdp: hsdp 2x2", "tp: tp 2"])
    ]


def test_without_its_reference_beside_it_a_script_is_compared_with_itself(scripts: Path) -> None:
    (scripts / SINGLE).unlink()
    (group,) = groups_of([TP], None)
    assert group.reference == Trial("tp, one rank", Path(TP), 1, ("--tp", "1"))
    assert group.layouts == (Trial("tp 2", Path(TP), 2),)


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize(
    ("word", "strategy", "said"),
    [
        (SINGLE, None, "single.py lists no layouts to compare"),
        (TP, "tpp", "--strategy 'tpp' is no layout"),
        (TP, "", "--strategy '' is no layout"),
        (TP, "tp,,", "--strategy '' is no layout"),
        (LONE, "tp", "--strategy 'tp' is no layout"),
        ("gone.py", None, "script 'gone.py' does not exist"),
        ("fsdpp", None, "no recipe has the name 'fsdpp'"),
    ],
)
def test_what_is_not_there_is_refused_by_name(word: str, strategy: str | None, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        groups_of([word], strategy)
    assert refused.value.message == said


# --- equal -----------------------------------------------------------------------------


def curve(*losses: float, norm: float | None = None) -> Curve:
    return Curve(dict(enumerate(losses, 1)), {} if norm is None else {1: norm})


@pytest.mark.parametrize(
    ("layout", "difference", "at_step", "equal"),
    [
        (curve(5.0, 4.0, 3.0), 0.0, 1, True),
        (curve(5.0, 4.0 + 9e-6, 3.0), 9e-6, 2, True),
        (curve(5.0, 4.0, 3.0 - 2e-5), 2e-5, 3, False),
        (curve(5.0, 4.0, math.nan), math.nan, 3, False),
        (curve(math.nan, 9.0, 3.0), math.nan, 1, False),
        (curve(5.0, math.inf, 3.0), math.inf, 2, False),
        (curve(5.0, 4.0), math.inf, 3, False),
        (curve(5.0, 4.0, 3.0, 2.0), math.inf, 4, False),
    ],
)
def test_equal_is_every_loss_within_the_tolerance(
    layout: Curve, difference: float, at_step: int, equal: bool
) -> None:
    verdict = compare(curve(5.0, 4.0, 3.0), layout, 1e-5)
    assert verdict.difference == pytest.approx(difference, nan_ok=True)
    assert (verdict.at_step, verdict.equal) == (at_step, equal)


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        (3.0, 3.0 * (1 + 5e-6), True),
        (3.0, 3.0 * 1.001, False),
        (3000.0, 3000.01, True),
        (3.0, None, False),
        (3.0, math.nan, False),
        (None, 3.0, True),
        (0.0, 0.0, True),
    ],
)
def test_a_factor_of_the_gradient_is_seen_in_its_norm(
    before: float | None, after: float | None, equal: bool
) -> None:
    verdict = compare(curve(5.0, norm=before), curve(5.0, norm=after), 1e-5)
    assert (verdict.loss_is_equal, verdict.equal) == (True, equal)


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        ({4: 2.0}, {4: 2.0 + 9e-6}, True),
        ({4: 2.0}, {4: 2.1}, False),
        ({4: 2.0}, {}, False),
        ({4: 2.0, 8: 1.0}, {4: 2.0}, False),
        ({4: 2.0}, {4: math.nan}, False),
        ({}, {4: 2.0}, True),  # a reference that does not evaluate
    ],
)
def test_a_wrong_evaluation_is_off(
    before: dict[int, float], after: dict[int, float], equal: bool
) -> None:
    losses = {1: 5.0}
    verdict = compare(Curve(losses, {}, before), Curve(losses, {}, after), 1e-5)
    assert (verdict.loss_is_equal, verdict.equal) == (True, equal)


@pytest.mark.parametrize(
    ("before", "after", "seen"),
    [
        ({1: 2048.0, 2: 2048.0}, {1: 2048.0, 2: 2048.0 + 1e-9}, None),
        ({1: 2048.0, 2: 2048.0}, {1: 2048.0, 2: 4096.0}, (2048.0, 4096.0)),
        ({1: 2048.0}, {}, None),  # not every script counts
        ({}, {1: 2048.0}, None),
    ],
)
def test_ranks_that_all_take_the_same_data_are_off(
    before: dict[int, float], after: dict[int, float], seen: tuple[float, float] | None
) -> None:
    losses = {1: 5.0, 2: 4.0}
    verdict = compare(Curve(losses, {}, {}, before), Curve(losses, {}, {}, after), 1e-5)
    assert (verdict.loss_is_equal, verdict.seen) == (True, seen)
    assert verdict.equal == (seen is None)


def test_arguments_of_every_training_and_those_of_a_reference_of_its_own(scripts: Path) -> None:
    header = """# /// script
# [tool.distrun.verify]
# alone = ["--tp", "1"]
# args = ["--warmup", "5"]
# [tool.distrun.verify.layouts]
# "two" = { ranks = 2 }
# "three" = { ranks = 3, args = ["--a", "2"], alone = ["--b", "0"] }
# ///
"""
    script = scripts / "own.py"
    script.write_text(header)
    first, second = groups_of([str(script)], None)
    assert first.reference == Trial("own, one rank", script, 1, ("--tp", "1", "--warmup", "5"))
    assert first.layouts == (Trial("two", script, 2, ("--warmup", "5")),)
    alone = Trial("own, one rank --b 0", script, 1, ("--b", "0", "--warmup", "5"))
    assert (second.reference, second.layouts[0].args) == (alone, ("--warmup", "5", "--a", "2"))


# --- what a run has logged ----------------------------------------------------------------


def test_a_curve_is_read_at_full_precision_and_other_lines_are_left(tmp_path: Path) -> None:
    lines = [
        {"loss": 0.1 + 0.2, "grad_norm": 3.5, "step": 1, "rank": 0},
        {"loss": "nan", "step": 2},
        {"validation_loss": 9.0, "step": 2},
        {"tokens": 64.0, "step": 2},
        {"samples": 8.0, "step": 3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = curve_of(Trial("x", Path("x.py"), 1), tmp_path)
    assert found.losses[1] == 0.1 + 0.2 and math.isnan(found.losses[2])
    assert found.grad_norms == {1: 3.5}
    assert (found.validation, found.seen) == ({2: 9.0}, {2: 64.0, 3: 8.0})


@pytest.mark.parametrize("text", [None, "", '{"validation_loss": 9.0, "step": 2}\n'])
def test_a_script_that_logs_no_loss_is_told_how(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UsageError, match=r"x\.py logged no loss on 2 ranks") as refused:
        curve_of(Trial("x", Path("x.py"), 2), tmp_path)
    assert "distrun.train.metrics.log" in refused.value.hint
