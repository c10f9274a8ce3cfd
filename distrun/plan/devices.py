"""Chooses the number of ranks and the GPUs of a node."""

from __future__ import annotations

from distrun.errors import MachineError, UsageError
from distrun.plan.draft import Draft
from distrun.plan.site import Machine
from distrun.probe.snapshot import Gpu

MAX_AUTO_NPROC = 4
_ONE_PROCESS = ("dp",)


def choose_gpus(draft: Draft, machine: Machine) -> list[str] | None:
    """Return the GPUs of a machine as names for CUDA_VISIBLE_DEVICES; None: do not set it.

    Raises:
        MachineError: They do not exist, or are in use.
    """
    wanted, torch = draft.job.gpus, machine.node.software
    if wanted is None:
        return None
    if not _present(machine):
        raise MachineError(
            f"--gpus {wanted} asks for GPUs, but there are none{_on(machine)}:"
            f" {_why_none(machine)}",
            "leave --gpus out to train on the CPU",
        )
    if torch.torch_cuda is None:
        raise MachineError(
            f"--gpus {wanted} asks for GPUs, but torch {torch.torch}{_on(machine)} is built"
            " without CUDA",
            "install a CUDA build of torch, or leave --gpus out to train on the CPU",
        )
    if wanted.startswith("free:"):
        return _free(machine, wanted, int(wanted.partition(":")[2]))
    return _named(draft, machine, wanted)


def _free(machine: Machine, wanted: str, count: int) -> list[str]:
    present = _present(machine)
    free = [str(gpu.index) for gpu in present if not gpu.busy]
    if len(free) < count:
        taken = "; ".join(gpu.users for gpu in present if gpu.busy)
        raise MachineError(
            f"--gpus {wanted} asks for {count} unused GPUs, {len(free)} of"
            f" {len(present)} are unused{_on(machine)}" + (f": {taken}" if taken else ""),
            f"--gpus free:{len(free)}" if free else "wait for the others, or name GPUs",
        )
    return free[:count]


def _named(draft: Draft, machine: Machine, wanted: str) -> list[str]:
    known = {str(gpu.index): gpu for gpu in _present(machine)}
    numbers = wanted.split(",")
    for number in numbers:
        if number not in known:
            raise MachineError(
                f"--gpus {wanted} names GPU {number};"
                f" {machine.host or 'this machine'} has {len(known)}: {', '.join(known)}",
                "nvidia-smi -L lists them",
            )
    taken = [known[number] for number in numbers if known[number].busy]
    # processes of others are not visible
    if taken and draft.job.check is not False and draft.site.asked:
        raise MachineError(
            f"--gpus {wanted} names GPUs in use{_on(machine)}:"
            f" {'; '.join(gpu.users for gpu in taken)}",
            f"--gpus free:{len(numbers)} picks unused GPUs; or wait; or --no-check shares the GPUs",
        )
    return numbers


def _on(machine: Machine) -> str:
    return f" on {machine.host}" if machine.command else ""


def _present(machine: Machine) -> tuple[Gpu, ...]:
    """Return the GPUs; none if the driver stopped answering half-way."""
    found = machine.node.nvml
    return () if found.problem else found.present


def _why_none(machine: Machine) -> str:
    found = machine.node.nvml
    lost = "; ".join(f"GPU {gpu.index}: {gpu.lost}" for gpu in found.gpus if gpu.lost)
    return found.problem or lost or "NVML counts 0"


def usable_gpus(draft: Draft, machine: Machine) -> list[str]:
    """Return the GPUs that `auto` counts: usable by this torch and in CUDA_VISIBLE_DEVICES."""
    if machine.node.software.torch_cuda is None:
        return []
    return list(machine.node.nvml.visible(visible_devices(draft, machine)))


def ranks_of_node(asked: int | str, strategy: str | None, gpus: int, cores: int) -> int:
    """Return the number of ranks of a node.

    Args:
        asked: `--nproc-per-node`.
        strategy: The strategy of the job.
        gpus: The number of GPUs of this node that the job may use.
        cores: The same for cores.
    """
    if strategy in _ONE_PROCESS:
        return 1
    if isinstance(asked, int):
        return asked
    if asked == "cpu":
        return cores
    return gpus or (0 if asked == "gpu" else min(MAX_AUTO_NPROC, cores))


def visible_devices(draft: Draft, machine: Machine) -> str | None:
    """Return CUDA_VISIBLE_DEVICES of the job, else of the machine's environment."""
    return draft.job.env.get("CUDA_VISIBLE_DEVICES", machine.visible_devices)


def choose_nproc(draft: Draft, machine: Machine, nnodes: int, gpus: list[str] | None) -> int:
    """Return the ranks of a node.

    Args:
        draft: Records the choice.
        machine: The node, or the machine that all nodes share.
        nnodes: Number of nodes.
        gpus: The GPUs of `--gpus`; None without it.

    Raises:
        UsageError: The strategy uses one process, and more were asked for.
        MachineError: There are fewer GPUs than asked for.
    """
    job = draft.job
    emulated = nnodes if draft.site.emulated else 1
    holders = emulated + job.spare if draft.site.emulated else 1  # spares have GPUs of their own
    usable = usable_gpus(draft, machine) if gpus is None else gpus
    gpus_a_node, cores_a_node = len(usable) // holders, max(1, machine.cores // emulated)
    asked = job.nproc_per_node
    if asked == "auto" and machine.slots is not None:
        asked = machine.slots
    nproc = ranks_of_node(asked, job.strategy, gpus_a_node, cores_a_node)
    source, why = draft.source("nproc_per_node"), "ranks on each node"
    if gpus is not None and not gpus_a_node:
        raise MachineError(
            f"--gpus {job.gpus} cannot be divided among {holders} nodes",
            f"--nodes {max(1, len(gpus) - job.spare)}",
        )
    if job.strategy in _ONE_PROCESS:
        if asked not in ("auto", 1) or nnodes > 1:
            raise UsageError(
                f"strategy {job.strategy} is one process; --nodes {job.nodes}"
                f" --nproc-per-node {asked} asks for more",
                "--strategy ddp, or leave both flags out",
            )
        source, why = draft.source("strategy"), f"{job.strategy} is one process"
    elif asked == "gpu":
        if not gpus_a_node:
            raise _no_gpu(machine, len(usable), holders)
        source, why = "detected", "one rank a GPU"
    elif asked == "cpu":
        source, why = "detected", "one rank a core"
    elif asked == "auto" and gpus_a_node:
        source = "detected"
        why = f"{len(usable)} GPU{'s' * (len(usable) != 1)}, one rank each"
    elif asked == "auto":
        source = "detected"
        shared = f" over {emulated} emulated nodes" if emulated > 1 else ""
        cores = f"{machine.cores} core{'s' * (machine.cores != 1)}"
        why = f"{cores}{shared}, at most {MAX_AUTO_NPROC} ranks a node"
        draft.note(f"{nproc} {'rank' if nproc == 1 else 'ranks'} a node: no GPU, {why}")
    else:
        if asked != job.nproc_per_node:
            source, why = "hostfile", "slots"
        if gpus is not None and nproc > gpus_a_node:
            raise MachineError(
                f"--nproc-per-node {nproc} is above the {gpus_a_node} GPUs a node"
                f" that --gpus {job.gpus} gives",
                f"--nproc-per-node {gpus_a_node}" if gpus_a_node else "fewer nodes",
            )
        if 0 < gpus_a_node < nproc:
            draft.note(
                f"fewer GPUs ({gpus_a_node}) than ranks ({nproc}) a node: recipes use gloo on CPU"
            )
    draft.choose("--nproc-per-node", nproc, source, why)
    return nproc


def _no_gpu(machine: Machine, usable: int, emulated: int) -> MachineError:
    torch = machine.node.software
    shared = f" for {emulated} nodes" if emulated > 1 else ""
    if not _present(machine):
        reason = _why_none(machine)
    elif torch.torch_cuda is None:
        reason = f"torch {torch.torch} is built without CUDA"
    else:
        reason = f"{usable} usable{shared}"
    return MachineError(
        f"--nproc-per-node gpu finds no GPU{_on(machine)}: {reason}", "--nproc-per-node cpu"
    )
