"""Numbers of a training step, for the live status line and `metrics.jsonl`.

    from distrun.train import metrics

    metrics.log(step, total_steps=steps, loss=loss.item(), samples_per_s=rate)

Without distrun around the script (bare torchrun, plain python) nobody listens. A tracker that the
script has open gets the same numbers, with or without distrun: see `trackers`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from distrun.env import report_fd
from distrun.train.trackers import Trackers, Writer

_PIPE_ATOMIC_NBYTES = 4096  # PIPE_BUF on Linux; other writers could split a longer line

_trackers = Trackers()


def attach(writer: Writer) -> None:
    """Pass the numbers on to a SummaryWriter of TensorBoard, too.

    Args:
        writer: The script's own; it closes it.
    """
    _trackers.attach(writer)


def log(step: int, *, total_steps: int | None = None, **values: float) -> None:
    """Report the numbers of one step; call it on one rank, usually rank 0.

    Args:
        step: Steps done so far, counted from 1.
        total_steps: Steps of the whole run, for the time left; None if unknown.
        **values: Named numbers. The status line shows `loss`, `lr`, `samples_per_s` and
            `tokens_per_s`. `metrics.jsonl` keeps all of them, and above 64 MiB those of
            every second, fourth, … step. Names that a record has itself, such as `time` and
            `rank`, get a `_` behind them there.

    Raises:
        ValueError: A name does not fit one atomic pipe write (4096 bytes as JSON).
    """
    numbers = {name: float(value) for name, value in values.items()}
    _trackers.log(int(step), numbers)
    fd = report_fd()
    if fd is None:
        return
    record = {
        "report": "metrics",
        "time": round(time.time(), 6),
        "step": int(step),
        "total_steps": None if total_steps is None else int(total_steps),
    }
    # JSON knows no NaN: a diverged loss travels as its name ("nan", "inf").
    told = {name: x if math.isfinite(x) else str(x) for name, x in numbers.items()}
    try:
        for line in _lines(record, told):
            os.write(fd, line)
    except OSError:
        pass  # the agent is gone: training continues, the launcher reports why


def _lines(record: Mapping[str, Any], values: Mapping[str, float | str]) -> Iterator[bytes]:
    """Yield the record with some of the values in turn, as much as fits one write."""
    empty = len(json.dumps({**record, "values": {}})) + 1
    part: dict[str, float | str] = {}
    nbytes = empty
    for name, value in values.items():
        more = len(json.dumps({name: value}))  # its braces are a comma and a blank
        if part and nbytes + more > _PIPE_ATOMIC_NBYTES:
            yield json.dumps({**record, "values": part}).encode() + b"\n"
            part, nbytes = {}, empty
        if nbytes + more > _PIPE_ATOMIC_NBYTES:
            raise ValueError(f"metrics.log: a name of {len(name)} characters is too long")
        part[name] = value
        nbytes += more
    yield json.dumps({**record, "values": part}).encode() + b"\n"
