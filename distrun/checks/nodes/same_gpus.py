"""Facts of GPUs that should be equal on all nodes."""

from __future__ import annotations

from distrun.checks.nodes.compare import Fact, compared, gpu_field, has_gpus
from distrun.checks.rule import Rule, Severity
from distrun.checks.words import counted
from distrun.probe.snapshot import Node


def _count(node: Node) -> str | None:
    nvml = node.nvml
    if nvml.problem and nvml.problem_kind != "absent":
        return None  # it has a driver that did not answer
    return counted(len(nvml.present), "GPU")


def _models(node: Node) -> str | None:
    return " + ".join(sorted({gpu.name for gpu in node.nvml.present if gpu.name})) or None


def _gib(nbytes: int) -> str:
    # In whole GiB: the memory that drivers reserve differs slightly.
    return f"{nbytes / 2**30:.0f} GiB"


def _on_or_off(mode: bool) -> str:
    return "on" if mode else "off"


def _watts(limit_w: float) -> str:
    return f"{limit_w:g} W"


RULES = (
    Rule(
        id="nodes.gpu.count",
        title="Number of GPUs, over nodes",
        why="Every node starts the same number of ranks; a node with fewer GPUs cannot.",
        fix="Leave that node out, restore its GPUs (gpu.lost and gpu.excluded may show the"
        " reason), or lower --nproc-per-node.",
        source="facebookresearch/gcm, Azure/azurehpc-health-checks",
        judge=compared(Fact(_count, "have", missing=lambda node: node.nvml.problem), Severity.FAIL),
        gpus_only=True,
    ),
    Rule(
        id="nodes.gpu.model",
        title="GPU models, over nodes",
        why="Every step waits for the slowest GPU, and the smallest memory limits the batch size.",
        fix="Choose nodes of one kind (Slurm: --constraint or --gres=gpu:MODEL:N).",
        source="stas00/ml-engineering",
        judge=compared(
            Fact(_models, "have", missing=lambda node: "no GPU reports its name"),
            Severity.WARN,
            has_gpus,
        ),
        gpus_only=True,
    ),
    Rule(
        id="nodes.gpu.memory",
        title="GPU memory, over nodes",
        why="All ranks hold the same share of the model: the GPU with the least memory runs"
        " out of memory first.",
        fix="Choose nodes of one kind; if a GPU has less memory than its model should, check"
        " MIG, ECC and retired memory.",
        source="stas00/ml-engineering",
        judge=compared(gpu_field("memory_total_nbytes", "GPUs of", _gib), Severity.WARN, has_gpus),
        gpus_only=True,
    ),
    Rule(
        id="nodes.gpu.vbios",
        title="GPU firmware (VBIOS), over nodes",
        why="The firmware sets power and clock curves: with different versions, GPUs of one"
        " model run at different speeds.",
        fix="Run the vendor's firmware update on the nodes that differ.",
        source="distrun's own rule",
        judge=compared(gpu_field("vbios_version", "VBIOS", str), Severity.WARN, has_gpus),
        gpus_only=True,
    ),
    Rule(
        id="nodes.gpu.ecc",
        title="ECC mode, over nodes",
        why="GPUs without ECC have slightly more memory and bandwidth, and do not detect"
        " flipped bits: results and speed differ between nodes.",
        fix="`nvidia-smi -e 1` on the nodes without ECC, then reset their GPUs.",
        source="distrun's own rule",
        judge=compared(gpu_field("ecc_mode", "ECC", _on_or_off), Severity.WARN, has_gpus),
        gpus_only=True,
    ),
    Rule(
        id="nodes.gpu.power_limit",
        title="Power limit of GPUs, over nodes",
        why="Under load the GPUs with the lower limit run at lower clocks, and all ranks wait"
        " for them.",
        fix="Set the same limit on every node: `nvidia-smi -pl WATTS` as root.",
        source="distrun's own rule",
        judge=compared(
            gpu_field("power_limit_w", "a power limit of", _watts), Severity.WARN, has_gpus
        ),
        gpus_only=True,
    ),
)
