"""A frozen dataclass of settings, and its command line.

    class Config(TrainConfig):
        tp: int = option(2, "ranks that share each layer", low=1)

`parse(Config)` makes `--tp` of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from distrun.env import TorchrunEnv
from distrun.extras import missing

_T = TypeVar("_T")
_RANK_0_FIRST_S = 10.0
Schedule = Literal["cosine", "linear", "polynomial", "exponential", "constant"]
Precision = Literal["float32", "bfloat16", "float16", "float64"]


class ConfigError(ValueError):
    """A setting cannot work, alone or with the others; the text is for the user."""


def option(default: _T, text: str, low: float | None = None, high: float | None = None) -> _T:
    """Declare a setting: its default, its help, and the range that works."""
    limits = {"help": text, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class TrainConfig:
    """What every recipe can be told; each is a flag: `batch_size` is `--batch-size`."""

    batch_size: int = option(16, "samples of a step, of all ranks and micro-batches", 1)
    steps: int = option(200, "of training", 1)
    lr: float = option(3e-3, "peak learning rate", 0)
    warmup_steps: int = option(20, "in which the rate rises from 0", 0)
    schedule: Schedule = option("cosine", "how the rate falls after it")
    min_lr: float = option(0.1, "where it ends, as a part of --lr", 0, 1)
    clip: float = option(1.0, "largest norm of all gradients together; 0: no clipping", 0)
    precision: Precision = option(
        "float32", "of the arithmetic; weights stay float32 (float64: all of it)"
    )
    seed: int = option(0, "of the weights and of the order of the data", 0, 2**63 - 1)
    deterministic: bool = option(False, "the same bits in every run")
    log_every: int = option(10, "steps from one printed line to the next", 1)
    eval_every: int = option(100, "steps from one evaluation to the next; 0: at the end", 0)
    checkpoint_dir: str = option("", "default: in the run's directory; outside of a run, none")
    checkpoint_every: int = option(0, "steps; 0: at the end, and when told to stop", 0)
    checkpoint_minutes: float = option(0, "minutes from one to the next; 0: off", 0)
    save: bool = option(True, "write checkpoints")
    keep: int = option(2, "checkpoints to keep", 1)
    resume: str = option("auto", "auto: the last good checkpoint, if any; none; or a path")
    profile: str = option("", "file for a trace of steps 3 to 5, for Perfetto")
    tensorboard: str = option("", "directory for TensorBoard")


@dataclass(frozen=True)
class TextConfig(TrainConfig):
    """What every recipe of the GPT can be told, too."""

    size: str = option("tiny", "of the model, by name: tiny small 124M 350M 774M 1.5B 8B")
    tied: bool | None = option(None, "one matrix as embedding and head; None: as the size has it")
    seq_len: int = option(128, "tokens of a window", 2)
    accumulate: int = option(1, "micro-batches a step: as many passes, one update", 1)
    weight_decay: float = option(0.1, "of matrices; norms have none", 0)
    beta2: float = option(0.95, "of AdamW", 0, 1)
    compile: bool = option(False, "torch.compile each block")
    recompute: Literal["none", "selective", "full"] = option(
        "none", "activations that backward computes anew: activation checkpointing"
    )
    data: str = option(
        "",
        "folder of .txt (bytes), .bin (uint16) or .bin32 (uint32) files;"
        " default: the source of Python's library",
    )
    workers: int = option(0, "DataLoader processes a rank", 0, 64)
    eval_batches: int = option(4, "of --batch-size windows", 1)
    sample: int = option(0, "bytes of text to write at the end", 0, 100_000)


_Config = TypeVar("_Config", bound=TrainConfig)


def parse(
    config: type[_Config],
    *checks: Callable[[_Config, int], object],
    words: Sequence[str] | None = None,
) -> _Config:
    """Read the command line; what cannot work ends here with exit code 2, told by one rank.

    Args:
        config: The dataclass; each field is a flag.
        *checks: Called with the settings and the world size; their ValueError is told too.
        words: The command line; None: this process's own.
    """
    env = TorchrunEnv.read()
    parser = _parser(config)
    parser.rank = env.rank
    known, unknown = parser.parse_known_args(words)
    values = vars(known)
    try:
        _require_known(unknown, values)
        _require_ranges(config, values)
        _require_extras(values)
        settings = config(**values)
        for check in checks:
            check(settings, env.world_size)
    except ValueError as error:
        parser.error(str(error))
    return settings


class _Parser(argparse.ArgumentParser):
    """Says what is wrong on one rank, which ends first, and with the same code on all.

    The launcher stops all ranks when the first one ends. So the others let rank 0 go first, which
    tells why; one that is not stopped meanwhile was refused alone (its node lacks a file, say),
    and tells it itself.
    """

    rank = 0

    def error(self, message: str) -> typing.NoReturn:
        if self.rank > 0:
            time.sleep(_RANK_0_FIRST_S)
        super().error(message)


def _parser(config: type[TrainConfig]) -> _Parser:
    parser = _Parser(usage="%(prog)s [--FLAG VALUE ...]", allow_abbrev=False)
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind: Any = hints[field.name]
        rest: dict[str, Any] = {"type": kind}
        if typing.get_origin(kind) is Literal:
            rest = {"choices": typing.get_args(kind)}
        elif kind in (bool, bool | None):
            rest = {"action": argparse.BooleanOptionalAction}
        text = f"{field.metadata['help']} [{field.default}]".replace("%", "%%")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, default=field.default, help=text, **rest)
    return parser


def _require_known(unknown: Sequence[str], values: Mapping[str, Any]) -> None:
    if unknown:
        flags = ["--" + name.replace("_", "-") for name in values]
        flags += [
            "--no-" + flag[2:]
            for flag, value in zip(flags, values.values(), strict=True)
            if isinstance(value, bool)
        ]
        typed = next((w.partition("=")[0] for w in unknown if w.startswith("--")), "")
        near = difflib.get_close_matches(typed, flags, n=1, cutoff=0.6)
        advice = f"; did you mean {near[0]}?" if near else "; --help lists the flags"
        raise ConfigError(f"unrecognized arguments: {' '.join(unknown)}{advice}")


def _require_extras(values: dict[str, Any]) -> None:
    if values["tensorboard"] and (command := missing("tensorboard", "tensorboard")):
        raise ConfigError(f"--tensorboard needs tensorboard, which is not installed: {command}")


def _require_ranges(config: type[TrainConfig], values: dict[str, Any]) -> None:
    for field in dataclasses.fields(config):
        low, high = field.metadata["low"], field.metadata["high"]
        value, flag = values[field.name], "--" + field.name.replace("_", "-")
        if low is not None and not value >= low:  # written so that NaN fails too
            raise ConfigError(f"{flag} must be at least {low}, not {value}")
        if high is not None and not value <= high:
            raise ConfigError(f"{flag} must be at most {high}, not {value}")
