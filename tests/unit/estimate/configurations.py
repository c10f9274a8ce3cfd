"""Configurations of the recipes that formula and trace are held against each other with."""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Case(NamedTuple):
    """A recipe, the ranks of the job, and flags."""

    recipe: str
    world_size: int
    flags: str

    @property
    def words(self) -> list[str]:
        """The recipe and its flags."""
        return [f"recipes/{self.recipe}.py", *self.flags.split()]

    def __str__(self) -> str:
        return f"{self.recipe} {self.world_size} {self.flags}"


_MODEL = ("--size small --seq-len 64", "--size 124M --seq-len 64 --no-tied")
_PRECISION = ("", "--precision bfloat16")


def cases() -> list[Case]:
    """Return all of them, those of one world size together."""
    found = [case for world_size in (8, 64, 512) for case in _of(world_size)]
    assert len(found) == len(set(found)) >= 100
    return found


def _of(n: int) -> list[Case]:
    every = f"--batch-size {2 * n}"
    rows: list[tuple[str, str]] = []
    for model, precision in itertools.product(_MODEL, _PRECISION):
        both = f"{model} {precision} {every}".strip()
        rows += [("ddp_gpt", both), ("fsdp", both), ("fsdp", f"{both} --no-reshard")]
        rows += [("fsdp", f"{both} --replicate {n // 4}"), ("fsdp_tp", f"{both} --tp 4")]
        rows += [("ddp_gpt", f"{both} --accumulate 2"), ("fsdp", f"{both} --accumulate 2")]
        if n == 8:
            rows += [("cp", f"{both} --cp 2")]
            rows += [("tp", both)] if "small" in model else []
            rows += [("zero1", both), ("fsdp", f"{both} --recompute full")]
            rows += [("pp", f"{both} --pp 2 --beside fsdp")]
    return [Case(recipe, n, flags) for recipe, flags in rows]
