"""Chooses the number of ranks and the GPUs of a node."""

from __future__ import annotations

from distrun.errors import MachineError, UsageError
from distrun.plan.draft import Draft
from distrun.probe.facts import Gpu

MAX_AUTO_NPROC = 4
_ONE_PROCESS = ("dp",)


def choose_gpus(draft: Draft) -> list[str] | None:
    """Return the GPUs to use as names for CUDA_VISIBLE_DEVICES; None: do not set it.

    Raises:
        MachineError: They do not exist, or are in use.
    """
    wanted = draft.job.gpus
    if wanted is None:
        return None
    if not _present(draft):
        raise MachineError(
            f"--gpus {wanted} asks for GPUs, but there are none: {_why_none(draft)}",
            "leave --gpus out to train on the CPU",
        )
    if draft.facts.torch.cuda is None:
        raise MachineError(
            f"--gpus {wanted} asks for GPUs, but torch {draft.facts.torch.version} is built"
            " without CUDA",
            "install a CUDA build of torch, or leave --gpus out to train on the CPU",
        )
    if wanted.startswith("free:"):
        return _free(draft, wanted, int(wanted.partition(":")[2]))
    return _named(draft, wanted)


def _free(draft: Draft, wanted: str, count: int) -> list[str]:
    present = _present(draft)
    free = [str(gpu.index) for gpu in present if not gpu.busy]
    if len(free) < count:
        taken = "; ".join(gpu.users for gpu in present if gpu.busy)
        raise MachineError(
            f"--gpus {wanted} asks for {count} unused GPUs, {len(free)} of"
            f" {len(present)} are unused" + (f": {taken}" if taken else ""),
            f"--gpus free:{len(free)}" if free else "wait for the others, or name GPUs",
        )
    return free[:count]


def _named(draft: Draft, wanted: str) -> list[str]:
    known = {str(gpu.index): gpu for gpu in _present(draft)}
    numbers = wanted.split(",")
    for number in numbers:
        if number not in known:
            raise MachineError(
                f"--gpus {wanted} names GPU {number}; this machine has {len(known)}:"
                f" {', '.join(known)}",
                "nvidia-smi -L lists them",
            )
    taken = [known[number] for number in numbers if known[number].busy]
    # processes of others are not visible
    if taken and draft.job.check is not False and not draft.job.hosts:
        raise MachineError(
            f"--gpus {wanted} names GPUs in use: {'; '.join(gpu.users for gpu in taken)}",
            f"--gpus free:{len(numbers)} picks unused GPUs; or wait; or --no-check shares the GPUs",
        )
    return numbers


def _present(draft: Draft) -> tuple[Gpu, ...]:
    """Return the GPUs; none if the driver stopped answering half-way."""
    found = draft.facts.gpus
    return () if found.problem else found.present


def _why_none(draft: Draft) -> str:
    found = draft.facts.gpus
    lost = "; ".join(f"GPU {gpu.index}: {gpu.lost}" for gpu in found.gpus if gpu.lost)
    return found.problem or lost or "NVML counts 0"


def usable_gpus(draft: Draft) -> list[str]:
    """Return the GPUs that `auto` counts: usable by this torch and in CUDA_VISIBLE_DEVICES."""
    if draft.facts.torch.cuda is None:
        return []
    return list(draft.facts.gpus.visible(visible_devices(draft)))


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


def visible_devices(draft: Draft) -> str | None:
    """Return CUDA_VISIBLE_DEVICES of the job, else of the environment."""
    return draft.job.env.get("CUDA_VISIBLE_DEVICES", draft.facts.visible_devices)


def choose_nproc(draft: Draft, nnodes: int, local: bool, gpus: list[str] | None) -> int:
    """Return the ranks of a node.

    Args:
        draft: Records the choice.
        nnodes: Number of nodes.
        local: Whether nodes are emulated and share this machine's cores and GPUs.
        gpus: The GPUs of `--gpus`; None without it.

    Raises:
        UsageError: The strategy uses one process, and more were asked for.
        MachineError: There are fewer GPUs than asked for.
    """
    job, facts = draft.job, draft.facts
    emulated = nnodes if local else 1
    usable = usable_gpus(draft) if gpus is None else gpus
    gpus_a_node, cores_a_node = len(usable) // emulated, max(1, facts.host.cores // emulated)
    asked = job.nproc_per_node
    nproc = ranks_of_node(asked, job.strategy, gpus_a_node, cores_a_node)
    source, why = draft.source("nproc_per_node"), "ranks on each node"
    if gpus is not None and not gpus_a_node:
        raise MachineError(
            f"--gpus {job.gpus} cannot be divided among {nnodes} nodes", f"--nodes {len(gpus)}"
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
            raise _no_gpu(draft, len(usable), emulated)
        source, why = "detected", "one rank a GPU"
    elif asked == "cpu":
        source, why = "detected", "one rank a core"
    elif asked == "auto" and gpus_a_node:
        source = "detected"
        why = f"{len(usable)} GPU{'s' * (len(usable) != 1)}, one rank each"
    elif asked == "auto":
        source = "detected"
        shared = f" over {emulated} emulated nodes" if emulated > 1 else ""
        cores = f"{facts.host.cores} core{'s' * (facts.host.cores != 1)}"
        why = f"{cores}{shared}, at most {MAX_AUTO_NPROC} ranks a node"
        draft.notes.append(f"{nproc} {'rank' if nproc == 1 else 'ranks'} a node: no GPU, {why}")
    else:
        if gpus is not None and nproc > gpus_a_node:
            raise MachineError(
                f"--nproc-per-node {nproc} is above the {gpus_a_node} GPUs a node"
                f" that --gpus {job.gpus} gives",
                f"--nproc-per-node {gpus_a_node}" if gpus_a_node else "fewer nodes",
            )
        if 0 < gpus_a_node < nproc:
            draft.notes.append(
                f"fewer GPUs ({gpus_a_node}) than ranks ({nproc}) a node: recipes use gloo on CPU"
            )
    draft.choose("--nproc-per-node", nproc, source, why)
    return nproc


def _no_gpu(draft: Draft, usable: int, emulated: int) -> MachineError:
    facts = draft.facts
    shared = f" for {emulated} nodes" if emulated > 1 else ""
    if not _present(draft):
        reason = _why_none(draft)
    elif facts.torch.cuda is None:
        reason = f"torch {facts.torch.version} is built without CUDA"
    else:
        reason = f"{usable} usable{shared}"
    return MachineError(f"--nproc-per-node gpu finds no GPU: {reason}", "--nproc-per-node cpu")
