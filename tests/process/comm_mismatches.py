"""The table of calls that do not match: see test_comm_mismatch.py, which runs it.

Torch's columns are what torch 2.13 was measured to do with two ranks; they are asserted so
that a torch that does better, or worse, is noticed. With four ranks plain gloo has other
ways for some rows: sizes that differ give garbage on two ranks and a timeout on the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TIMEOUT_S = 2.0
"""Of a collective in checked mode."""
LATE_S = 1.6 * TIMEOUT_S
Call = Callable[[Any], Any]


def ramp(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return 1, 2, 3, …: values that show when they were added to others than their like."""
    return torch.arange(1, 1 + torch.Size(shape).numel(), dtype=dtype).view(shape)


def loss(c: Any) -> Tensor:
    return c.all_reduce(ramp(4))


def accuracy(c: Any) -> Tensor:
    return c.all_reduce(10 * ramp(4))


def late_loss(c: Any) -> Tensor:
    time.sleep(LATE_S)
    return c.all_reduce(ramp(4))


def broken_loss(c: Any) -> Tensor:
    raise ValueError("the data is not there")


def leave(c: Any) -> None:
    time.sleep(0.5)  # by then the others have called, and the table has two lines
    c.close()


MISMATCH = "CollectiveMismatchError"
LOSS = "all_reduce | op=sum | float32 | [4] | at {usual}"


@dataclass(frozen=True)
class Row:
    """One mismatch: the last rank makes other calls than the others."""

    name: str
    usual: tuple[Call, ...]
    odd: tuple[Call, ...]
    plain: str
    """What gloo does by itself: garbage (wrong values, no error), aborts, times out, error."""
    detail: str
    """What it does with TORCH_DISTRIBUTED_DEBUG=DETAIL; caught: every rank is told at once."""
    odd_line: str
    """What checked mode's table says of the odd rank: its first line."""
    usual_line: str = LOSS
    errors: tuple[str | None, str | None] = (MISMATCH, MISMATCH)
    """What checked mode raises on the usual ranks, and on the odd one."""
    caught_at: int = 0
    """At which of the calls; those before it are carried out."""
    in_step: bool = True
    """Whether the group can be used after that."""
    ends_rank: bool = False

    def lines(self) -> tuple[str, str]:
        """Return the two lines of the table, filled in."""
        lines = {
            "usual": sites(self.usual[self.caught_at])[-1],
            "odd": sites(self.odd[self.caught_at])[-1],
            "odd_begins": sites(self.odd[0])[0],
        }
        return self.odd_line.format(**lines), self.usual_line.format(**lines)


def sites(call: Call) -> list[str]:
    """Return the lines of a function's body, as file:line."""
    code = call.__code__
    numbers = sorted({line for *_, line in code.co_lines() if line})
    body = numbers[1:] if len(numbers) > 1 else numbers  # without the line of the def
    return [f"{Path(code.co_filename).name}:{number}" for number in body]


ROWS = [
    Row(
        "op",
        usual=(loss,),
        odd=(lambda c: c.broadcast(ramp(4)),),
        plain="times out",
        detail="caught",
        odd_line="broadcast | src=0 | float32 | [4] | at {odd}",
    ),
    Row(
        "shape of another size",
        usual=(loss,),
        odd=(lambda c: c.all_reduce(ramp(5)),),
        plain="aborts",
        detail="caught",
        odd_line="all_reduce | op=sum | float32 | [5] | at {odd}",
    ),
    Row(
        "shape of the same size",
        usual=(lambda c: c.all_reduce(ramp(2, 3)),),
        odd=(lambda c: c.all_reduce(ramp(2, 3).T.contiguous()),),
        plain="garbage",
        detail="caught",
        odd_line="all_reduce | op=sum | float32 | [3, 2] | at {odd}",
        usual_line="all_reduce | op=sum | float32 | [2, 3] | at {usual}",
    ),
    Row(
        "dtype, float32 and float64",
        usual=(loss,),
        odd=(lambda c: c.all_reduce(ramp(4, dtype=torch.float64)),),
        plain="aborts",
        detail="caught",
        odd_line="all_reduce | op=sum | float64 | [4] | at {odd}",
    ),
    Row(
        "dtype, float32 and int32",
        usual=(loss,),
        odd=(lambda c: c.all_reduce(ramp(4, dtype=torch.int32)),),
        plain="garbage",
        detail="caught",
        odd_line="all_reduce | op=sum | int32 | [4] | at {odd}",
    ),
    Row(
        "dtype, bfloat16 and float16",
        usual=(lambda c: c.all_reduce(ramp(4, dtype=torch.bfloat16)),),
        odd=(lambda c: c.all_reduce(ramp(4, dtype=torch.float16)),),
        plain="garbage",
        detail="caught",
        odd_line="all_reduce | op=sum | float16 | [4] | at {odd}",
        usual_line="all_reduce | op=sum | bfloat16 | [4] | at {usual}",
    ),
    Row(
        "reduce op",
        usual=(loss,),
        odd=(lambda c: c.all_reduce(ramp(4), "max"),),
        plain="garbage",
        detail="garbage",
        odd_line="all_reduce | op=max | float32 | [4] | at {odd}",
    ),
    Row(
        "root",
        usual=(lambda c: c.broadcast(ramp(4)),),
        odd=(lambda c: c.broadcast(ramp(4), src=1),),
        plain="times out",
        detail="times out",
        odd_line="broadcast | src=1 | float32 | [4] | at {odd}",
        usual_line="broadcast | src=0 | float32 | [4] | at {usual}",
    ),
    Row(
        "swapped order, other shapes",
        usual=(loss, lambda c: c.all_reduce(ramp(6))),
        odd=(lambda c: c.all_reduce(ramp(6)), loss),
        plain="aborts",
        detail="caught",
        odd_line="all_reduce | op=sum | float32 | [6] | at {odd}",
    ),
    Row(
        "swapped order, same shapes",
        usual=(loss, accuracy),
        odd=(accuracy, loss),
        plain="garbage",
        detail="garbage",
        odd_line="all_reduce | op=sum | float32 | [4] | at {odd}",
        caught_at=1,
    ),
    Row(
        "splits of all_to_all",
        usual=(lambda c: c.all_to_all(ramp(6)),),
        odd=(lambda c: c.all_to_all(ramp(6), sizes=[4] + [2 // c.rank] * c.rank),),
        plain="aborts",
        detail="aborts",
        odd_line="all_to_all | dim=0 | float32 | [*] | at {odd}",
        usual_line="all_to_all | dim=0 | float32 | [6] | at {usual}",
    ),
    Row(
        "stated sizes of all_gather",
        usual=(lambda c: c.all_gather(ramp(2), sizes=[2] * c.world_size),),
        odd=(lambda c: c.all_gather(ramp(2), sizes=[3] + [2] * c.rank),),
        plain="times out",  # on the usual ranks; the odd one is told that its sizes are wrong
        detail="caught",
        odd_line="all_gather | dim=0 sizes=[3, 2, 2] | float32 | [*] | at {odd}",
        usual_line="all_gather | dim=0 sizes=[2, 2, 2] | float32 | [*] | at {usual}",
    ),
    Row(
        "a rank is late",
        usual=(loss,),
        odd=(late_loss,),
        plain="times out",
        detail="error",  # "Ranks 1 failed to pass monitoredBarrier", on rank 0, without a line
        odd_line="has not called | it is at {odd_begins}",
        errors=("RankLateError", "GroupDeadError"),
        in_step=False,
    ),
    Row(
        "a rank has left",
        usual=(loss,),
        odd=(leave,),
        plain="times out",
        detail="error",
        odd_line="has left | it was closed at {odd}",
        errors=("RankLeftError", None),
        in_step=False,
    ),
    Row(
        "a rank raised",
        usual=(loss,),
        odd=(broken_loss,),
        plain="error",  # "Connection closed by peer", as its process ends
        detail="error",
        odd_line="has left | it raised ValueError: the data is not there",
        errors=("RankLeftError", "ValueError"),
        in_step=False,
        ends_rank=True,
    ),
]
