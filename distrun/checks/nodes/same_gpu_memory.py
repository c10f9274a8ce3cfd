"""GPUs of all nodes ought to have the same memory."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, gpu_field, has_gpus
from distrun.checks.rule import Rule, Severity


def _show(nbytes: int) -> str:
    # In whole GiB: drivers keep a little more or less for themselves.
    return f"{nbytes / 2**30:.0f} GiB"


RULE = Rule(
    id="nodes.gpu.memory",
    title="GPU memory, over nodes",
    why="All ranks hold the same share of the model: the one with the least memory runs out of it"
    " while the others wait.",
    fix="Choose nodes of one kind; a GPU with less memory than its model has is to be looked at"
    " (MIG, ECC, retired memory).",
    source="stas00/ml-engineering",
    judge=compared(gpu_field("memory_total_nbytes", "GPUs of", _show), Severity.WARN, has_gpus),
    gpus_only=True,
)
