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
    """A setting cannot work, by itself or with the others; the message is for the user."""


def option(default: _T, text: str, low: float | None = None, high: float | None = None) -> _T:
    """Declare a setting: its default, its help, and its range."""
    limits = {"help": text, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of every recipe; each is a flag: `batch_size` is `--batch-size`."""

    batch_size: int = option(16, "samples in a step, over all ranks and micro-batches", 1)
    steps: int = option(200, "training steps", 1)
    lr: float = option(3e-3, "peak learning rate", 0)
    warmup_steps: int = option(20, "steps in which the rate rises from 0", 0)
    schedule: Schedule = option("cosine", "how the rate falls after the warm-up")
    min_lr: float = option(0.1, "the last rate, as a fraction of --lr", 0, 1)
    clip: float = option(1.0, "largest norm of all gradients together; 0: no clipping", 0)
    precision: Precision = option(
        "float32", "dtype of the arithmetic; weights stay float32 (float64: everything)"
    )
    seed: int = option(0, "seed of the weights and of the order of the data", 0, 2**63 - 1)
    deterministic: bool = option(False, "bitwise equal results in every run")
    log_every: int = option(10, "steps between printed lines", 1)
    eval_every: int = option(100, "steps between evaluations; 0: only at the end", 0)
    checkpoint_dir: str = option("", "default: in the run directory; without distrun, none")
    checkpoint_every: int = option(0, "steps between checkpoints; 0: at the end and on SIGTERM", 0)
    checkpoint_minutes: float = option(0, "minutes between checkpoints; 0: off", 0)
    save: bool = option(True, "write checkpoints")
    keep: int = option(2, "checkpoints to keep", 1)
    resume: str = option("auto", "auto (the last good checkpoint, if any), none, or a path")
    profile: str = option("", "file for a trace of steps 3 to 5, for Perfetto")
    tensorboard: str = option("", "directory for TensorBoard")


@dataclass(frozen=True)
class WindowConfig(TrainConfig):
    """The further settings of every recipe that trains on windows of tokens."""

    seq_len: int = option(128, "tokens in a window", 2)
    accumulate: int = option(1, "micro-batches per step; one update after all", 1)
    weight_decay: float = option(0.1, "weight decay of matrices; norms have none", 0)
    beta2: float = option(0.95, "beta2 of AdamW", 0, 1)
    compile: bool = option(False, "torch.compile each block")
    recompute: Literal["none", "selective", "full"] = option(
        "none", "activation checkpointing: activations that backward recomputes"
    )
    data: str = option(
        "",
        "folder of .txt (bytes), .bin (uint16) or .bin32 (uint32) files;"
        " default: the source of Python's library",
    )
    workers: int = option(0, "DataLoader processes per rank", 0, 64)
    eval_batches: int = option(4, "evaluation batches of --batch-size windows", 1)
    sample: int = option(0, "bytes of text to write at the end", 0, 100_000)


@dataclass(frozen=True)
class TextConfig(WindowConfig):
    """The further settings of every recipe of the GPT."""

    size: str = option("tiny", "size of the model: tiny small 124M 350M 774M 1.5B 8B")
    tied: bool | None = option(None, "one matrix as embedding and head; None: as --size says")


_Config = TypeVar("_Config", bound=TrainConfig)


def parse(
    config: type[_Config],
    *checks: Callable[[_Config, int], object],
    words: Sequence[str] | None = None,
) -> _Config:
    """Read the command line; on a wrong one exit with code 2, with a message of one rank.

    Args:
        config: The dataclass; each field is a flag.
        *checks: Called with the settings and the world size; their ValueError is printed too.
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
        if values["tensorboard"]:
            require_package("--tensorboard", "tensorboard", "tensorboard")
        settings = config(**values)
        for check in checks:
            check(settings, env.world_size)
    except ValueError as error:
        parser.error(str(error))
    return settings


class _Parser(argparse.ArgumentParser):
    """Prints the help on rank 0, and an error on one rank; all exit with the same code.

    The launcher stops all ranks when the first one ends. So the others wait until rank 0 has
    printed the error and ended. A rank that is not stopped meanwhile is the only one with an
    error (its node lacks a file, for example), and prints it itself.
    """

    rank = 0

    def error(self, message: str) -> typing.NoReturn:
        if self.rank > 0:
            time.sleep(_RANK_0_FIRST_S)
        super().error(message)

    def print_help(self, file: Any = None) -> None:
        if self.rank == 0:
            super().print_help(file)


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


def require_package(flag: str, package: str, extra: str) -> None:
    """Refuse a flag whose package is not installed.

    Args:
        flag: The flag that needs it.
        package: As it is imported.
        extra: The extra of distrun that brings it.

    Raises:
        ConfigError: It is not there; the message has the command that installs it.
    """
    if command := missing(package, extra):
        raise ConfigError(f"{flag} needs {package}, which is not installed: {command}")


def _require_ranges(config: type[TrainConfig], values: dict[str, Any]) -> None:
    for field in dataclasses.fields(config):
        low, high = field.metadata["low"], field.metadata["high"]
        value, flag = values[field.name], "--" + field.name.replace("_", "-")
        if low is not None and not value >= low:  # written so that NaN fails too
            raise ConfigError(f"{flag} must be at least {low}, not {value}")
        if high is not None and not value <= high:
            raise ConfigError(f"{flag} must be at most {high}, not {value}")
