"""Versions of software that should be equal on all nodes."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared, field, has_driver
from distrun.checks.rule import Rule, Severity
from distrun.probe.snapshot import Node


def _torch(node: Node) -> str | None:
    software = node.software
    if not software.torch:
        return None
    cuda = software.torch_cuda
    # Versions of PyPI wheels do not contain the CUDA version.
    return software.torch + (f" (CUDA {cuda})" if cuda and "+" not in software.torch else "")


RULES = (
    Rule(
        id="nodes.torch",
        title="torch, over nodes",
        why="The wire formats of c10d and of torchrun's rendezvous are not compatible between"
        " versions: ranks hang in the first collective, or compute different results.",
        fix="Install the same version on every node, from one lock file or one image.",
        source="distrun's own rule",
        judge=compared(
            Fact(
                _torch,
                noun="torch",
                missing=lambda node: node.software.missing.get("torch") or "torch is not installed",
            ),
            Severity.FAIL,
        ),
    ),
    Rule(
        id="nodes.nccl",
        title="NCCL, over nodes",
        why="Ranks with different NCCL versions are not compatible: they hang in the first"
        " collective, or fail with an internal error.",
        fix="Install the same torch wheel on every node; check LD_LIBRARY_PATH and LD_PRELOAD"
        " on the node that differs: they may load another libnccl.so.2.",
        source="NVIDIA/nccl: all ranks of a communicator must run one version",
        judge=compared(
            field(lambda node: node.software, "nccl", "NCCL"),
            Severity.FAIL,
            lambda node: node.software.torch_cuda is not None,
        ),
        gpus_only=True,
    ),
    Rule(
        id="nodes.python",
        title="Python, over nodes",
        why="Objects are pickled from rank to rank, and compiled packages are built for one"
        " version: a script that runs on one node may fail on another.",
        fix="Use one environment or one image on all nodes; --python names the interpreter.",
        source="distrun's own rule",
        judge=compared(field(lambda node: node.software, "python", "Python"), Severity.WARN),
    ),
    Rule(
        id="nodes.distrun",
        title="distrun, over nodes",
        why="The agents of a run exchange messages with the launcher, whose format may differ"
        " between versions.",
        fix="Install the same version of distrun on every node.",
        source="distrun's own rule",
        judge=compared(field(lambda node: node.software, "distrun", "distrun"), Severity.WARN),
    ),
    Rule(
        id="nodes.kernel",
        title="Kernel, over nodes",
        why="Network and RDMA drivers are part of the kernel: a node that was not rebooted"
        " after an update may behave differently.",
        fix="Install the same kernel on every node, and reboot those that run an older one.",
        source="distrun's own rule",
        judge=compared(field(lambda node: node.host, "kernel", "kernel"), Severity.WARN),
    ),
    Rule(
        id="nodes.driver",
        title="Driver, over nodes",
        why="NCCL chooses algorithms by what each driver supports, and bugs of one version"
        " appear on some nodes only.",
        fix="Install the same driver on every node, and reboot them.",
        source="stas00/ml-engineering; docs.nvidia.com/deploy/cuda-compatibility",
        judge=compared(
            field(lambda node: node.nvml, "driver_version", "driver"), Severity.WARN, has_driver
        ),
        gpus_only=True,
    ),
)
