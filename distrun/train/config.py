"""A frozen dataclass of settings, and its command line.

    @dataclass(frozen=True)
    class Config(TrainConfig):
        tp: int = option(2, "ranks that share each layer", low=1)

    config = parse(Config)
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

_T = TypeVar("_T")


def option(default: _T, text: str, low: float | None = None, high: float | None = None) -> _T:
    """Declare a setting: its default, its help, and the range that works."""
    limits = {"help": text, "low": low, "high": high}
    return typing.cast(_T, dataclasses.field(default=default, metadata=limits))


@dataclass(frozen=True)
class TrainConfig:
    """What every GPT recipe can be told; each is a flag: `batch_size` is `--batch-size`."""

    size: str = option("tiny", "of the model, by name: tiny small 124M 350M 774M 1.5B 8B")
    tied: bool = option(False, "one matrix as embedding and head")
    seq_len: int = option(128, "tokens of a window", 2)
    batch_size: int = option(16, "windows of a step, of all ranks and micro-batches together", 1)
    accumulate: int = option(1, "micro-batches a step: as many passes, one update", 1)
    steps: int = option(200, "of training", 1)
    lr: float = option(3e-3, "peak learning rate", 0)
    warmup_steps: int = option(20, "in which the rate rises from 0", 0)
    schedule: Literal["cosine", "linear", "polynomial", "exponential", "constant"] = option(
        "cosine", "how the rate falls after it"
    )
    min_lr: float = option(0.1, "where it ends, as a part of --lr", 0, 1)
    weight_decay: float = option(0.1, "of matrices; norms have none", 0)
    beta2: float = option(0.95, "of AdamW", 0, 1)
    clip: float = option(1.0, "largest norm of all gradients together; 0: no clipping", 0)
    precision: Literal["float32", "bfloat16", "float16", "float64"] = option(
        "float32", "of the arithmetic; weights stay float32 (float64: all of it)"
    )
    compile: bool = option(False, "torch.compile each block")
    recompute: Literal["none", "selective", "full"] = option(
        "none", "activations that backward computes anew: activation checkpointing"
    )
    seed: int = option(0, "of the weights and of the order of the data", 0, 2**63 - 1)
    deterministic: bool = option(False, "the same bits in every run")
    data: str = option("", "folder of .txt or .bin; default: the source of Python's library")
    workers: int = option(0, "DataLoader processes a rank", 0, 64)
    eval_every: int = option(100, "steps from one evaluation to the next; 0: at the end", 0)
    eval_batches: int = option(4, "of --batch-size windows", 1)
    sample: int = option(0, "bytes of text to write at the end", 0, 100_000)
    log_every: int = option(10, "steps from one printed line to the next", 1)
    checkpoint_dir: str = option("", "default: in the run's directory, else ./checkpoints")
    checkpoint_every: int = option(0, "steps; 0: at the end, and when told to stop", 0)
    checkpoint_minutes: float = option(0, "minutes from one to the next; 0: off", 0)
    save: bool = option(True, "write checkpoints")
    keep: int = option(2, "checkpoints to keep", 1)
    resume: str = option("auto", "auto: the last good checkpoint, if any; none; or a path")
    profile: str = option("", "file for a trace of steps 3 to 5, for Perfetto")
    tensorboard: str = option("", "directory for TensorBoard")


_Config = TypeVar("_Config", bound=TrainConfig)


class ConfigError(ValueError):
    """A setting cannot work, alone or with the others; the text is for the user."""


def parse(config: type[_Config], words: Sequence[str] | None = None) -> _Config:
    """Read the command line; what cannot work ends here with exit code 2, told by rank 0.

    Args:
        config: The dataclass; each field is a flag.
        words: The command line; None: this process's own.
    """
    parser = argparse.ArgumentParser(usage="%(prog)s [--FLAG VALUE ...]", allow_abbrev=False)
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        flag = "--" + field.name.replace("_", "-")
        kind: Any = hints[field.name]
        rest: dict[str, Any] = {"type": kind}
        if typing.get_origin(kind) is Literal:
            rest = {"choices": typing.get_args(kind)}
        elif kind is bool:
            rest = {"action": argparse.BooleanOptionalAction}
        text = f"{field.metadata['help']} [{field.default}]".replace("%", "%%")
        parser.add_argument(flag, default=field.default, help=text, **rest)
    if os.environ.get("RANK", "0") != "0":
        sys.stderr.flush()
        parser.print_usage = parser.print_help = lambda file=None: None  # type: ignore[method-assign]
        parser.exit = lambda status=0, message=None: sys.exit(status)  # type: ignore[method-assign]
    values = vars(parser.parse_args(words))
    try:
        require_ranges(config, values)
        return config(**values)
    except ConfigError as error:
        parser.error(str(error))


def require_ranges(config: type[TrainConfig], values: dict[str, Any]) -> None:
    """Refuse a number outside of the range that its option declares."""
    for field in dataclasses.fields(config):
        low, high = field.metadata["low"], field.metadata["high"]
        value, flag = values[field.name], "--" + field.name.replace("_", "-")
        if low is not None and not value >= low:  # written so that NaN fails too
            raise ConfigError(f"{flag} must be at least {low}, not {value}")
        if high is not None and not value <= high:
            raise ConfigError(f"{flag} must be at most {high}, not {value}")
