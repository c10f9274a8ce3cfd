"""Settings from a command line: types, choices, ranges, and one sentence for what cannot work."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from distrun.extras import missing
from distrun.train.config import ConfigError, TextConfig, TrainConfig, option, parse


@dataclass(frozen=True)
class Config(TextConfig):
    tp: int = option(2, "ranks that share each matrix; 100 % of it", 1, 8)
    reshard: bool = option(True, "drop gathered weights")


def test_nothing_typed_gives_the_defaults() -> None:
    assert parse(Config, words=[]) == Config()


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--tp", "4"], "tp", 4),
        (["--tp=4"], "tp", 4),
        (["--no-reshard"], "reshard", False),
        (["--no-reshard", "--reshard"], "reshard", True),
        (["--deterministic"], "deterministic", True),
        (["--lr", "1e-4"], "lr", 1e-4),
        (["--precision", "bfloat16"], "precision", "bfloat16"),
        (["--data", "a folder; $(rm) ‽"], "data", "a folder; $(rm) ‽"),
        (["--data="], "data", ""),
        (["--seed", str(2**63 - 1)], "seed", 2**63 - 1),
    ],
)
def test_a_flag_sets_its_field(words: list[str], name: str, value: object) -> None:
    assert getattr(parse(Config, words=words), name) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tp", "0"], "--tp must be at least 1, not 0"),
        (["--tp", "9"], "--tp must be at most 8, not 9"),
        (["--tp", "two"], "argument --tp: invalid int value: 'two'"),
        (["--lr", "nan"], "--lr must be at least 0, not nan"),
        (["--lr", "-1"], "--lr must be at least 0, not -1.0"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--seed", str(2**63)], "--seed must be at most"),
        (["--min-lr", "2"], "--min-lr must be at most 1, not 2.0"),
        (["--precision", "fp8"], "invalid choice: 'fp8'"),
        (["--schedule", ""], "invalid choice: ''"),
        (["--step", "3"], "unrecognized arguments: --step 3; did you mean --steps?"),
        (["--batchsize=3"], "unrecognized arguments: --batchsize=3; did you mean --batch-size?"),
        (["--no-savee"], "unrecognized arguments: --no-savee; did you mean --no-save?"),
        (["--xyzzy", "3"], "unrecognized arguments: --xyzzy 3; --help lists the flags"),
        (["stray"], "unrecognized arguments: stray"),
        (["--lr"], "expected one argument"),
    ],
)
def test_what_cannot_work_is_told_in_a_line_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(Config, words=words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def refuse(config: TrainConfig, world_size: int) -> None:
    raise ConfigError(f"{world_size} ranks do not fit")


def test_a_check_sees_the_world_size_and_its_error_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SystemExit) as ended:
        parse(Config, refuse, words=[])
    assert ended.value.code == 2
    assert "error: 3 ranks do not fit" in capsys.readouterr().err


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(Config, words=["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ranks that share each matrix; 100 % of it [2]" in text
    assert "--checkpoint-every" in text and "--no-reshard" in text


def test_help_is_printed_by_rank_0_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        parse(Config, words=["--help"])
    assert (ended.value.code, capsys.readouterr().out) == (0, "")


def test_an_extra_that_is_missing_is_told_before_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with pytest.raises(SystemExit):
        parse(Config, words=["--tensorboard", "board"])
    told = capsys.readouterr().err.rstrip()
    assert "--tensorboard needs tensorboard, which is not installed: " in told
    assert told.endswith(missing("tensorboard", "tensorboard"))
    assert parse(Config, words=[]).tensorboard == ""
