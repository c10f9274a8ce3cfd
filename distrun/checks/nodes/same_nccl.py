"""All nodes must run the same NCCL."""

from __future__ import annotations

from distrun.checks.nodes.compare import compared, field
from distrun.checks.rule import Rule, Severity

RULE = Rule(
    id="nodes.nccl",
    title="NCCL, over nodes",
    why="Ranks of different NCCL versions do not understand one another: they hang in the first"
    " collective, or fail with an internal error.",
    fix="Install the same torch wheel everywhere; look at LD_LIBRARY_PATH and LD_PRELOAD on the"
    " node that differs, which may bring in another libnccl.so.2.",
    source="NVIDIA/nccl: all ranks of a communicator must run one version",
    judge=compared(
        field(lambda node: node.software, "nccl", "NCCL"),
        Severity.FAIL,
        lambda node: node.software.torch_cuda is not None,
    ),
    gpus_only=True,
)
