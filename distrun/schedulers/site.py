"""Reads the machines of a job, and finds how their nodes reach one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from distrun.errors import MachineError, NodesMissing, UsageError
from distrun.listen import free_port
from distrun.nodes.handed import Kept
from distrun.nodes.machines import OtherMachines
from distrun.nodes.project import Project
from distrun.nodes.reach import addresses_of, interface_of
from distrun.plan.site import Machine, Site
from distrun.probe.host import LOOPBACK, LOOPBACK_INTERFACE, resolve
from distrun.probe.node import read_node
from distrun.probe.nvml import LAUNCH_DEADLINE_S
from distrun.probe.script import Script, sha256_of
from distrun.probe.snapshot import Node
from distrun.probe.torch_facts import read_torch
from distrun.schedulers.own_site import site_of
from distrun.schedulers.place import OwnNode, Place
from distrun.schedulers.registry import PROBE, SERVING, Scheduler, name_of, opened, scheduler
from distrun.spec.job import Job

Tell = Callable[[str], None]
T = TypeVar("T")
_AGENT = "distrun.agent.remote"
_HOSTS_PORT = 29500  # a free port here may be in use on another machine
_MOST_LINES = 16
"""Of more hosts only those with a problem are told one by one."""


def here(job: Job) -> Site:
    """Return this machine, on which all nodes of the job are emulated."""
    return Site((Machine(_read_here(job)),), free_port(LOOPBACK))


def own_node(own: OwnNode, job: Job, tell: Tell, *, starts: bool) -> Site:
    """Return the nodes of a job of which this machine is one; see `own_site.site_of`."""
    return site_of(own, job, _read_here(job, addresses=True), tell, starts=starts)


def unasked(job: Job) -> Site:
    """Return the hosts of a job, taken to be like this machine; none of them is reached."""
    node = _read_here(job)
    machines = [
        Machine(
            node,
            host.label,
            resolve(reached := host.address or host.name) or reached,
            job.interface or "",
            slots=host.slots,
        )
        for host in _wanted(job, job.hosts)
    ]
    return Site(tuple(machines), _HOSTS_PORT, emulated=False, asked=False)


def asked(
    job: Job,
    script: Script,
    workdir: Path,
    tell: Tell,
    project: Project | None = None,
    nodes_of: Scheduler | None = None,
    require: Callable[[Node], None] = lambda _: None,
) -> tuple[Site, Kept]:
    """Reach the nodes of a job, read them, and find how they reach one another.

    Args:
        job: The job.
        script: Its script, to be compared with the file there.
        workdir: The working directory there.
        tell: Called with a line about each node.
        project: What to send there first.
        nodes_of: Gives the nodes; None: the scheduler that the job names or that fits.
        require: Called with each node before anything is sent there; refuses it with an error.

    Returns:
        The nodes, and connections to agents that have been started there.

    Raises:
        UsageError: The settings do not fit their scheduler, or two hosts are one machine.
        NodesMissing: Nodes cannot be reached, or cannot reach one another.
        MachineError: The scheduler gives no nodes, or the script differs.
    """
    chosen = nodes_of or scheduler(name_of(job))
    with opened(job, quick=True, nodes_of=chosen) as (places, machines):
        assert isinstance(machines, OtherMachines)
        wanted = {place.name: place for place in _wanted(job, places)}
        nodes = [
            node for node in machines.read(told=_board(tell, len(wanted))) if node.name in wanted
        ]
        nodes = _reached(job, nodes, wanted, chosen, tell)
        for node in nodes:
            require(node)
        if job.check is not False and name_of(job) == "ssh":  # Slurm, or a platform, may mean it
            _require_different(nodes)
        known = {
            node.name: _addresses(wanted[node.name], node, nodes, job.interface) for node in nodes
        }
        if project is not None:
            from distrun.schedulers.sync import sync  # few launches need it

            reached = [wanted[node.name] for node in nodes]
            sync(project, reached, chosen, str(workdir), tell)
        port = _port(job, machines, nodes[0].name)
        if job.check is not False and script.path is not None and not job.no_python:
            _require_script(job, script.path, workdir, machines, [node.name for node in nodes])
        nodes = list(machines.connected(nodes, known))
        addresses = _routes(nodes, wanted)
        agents = machines.agents([node.name for node in nodes])
    found = [_machine(job, node, wanted[node.name], addresses[node.name], chosen) for node in nodes]
    return Site(tuple(found), port, emulated=False), agents


def _machine(job: Job, node: Node, place: Place, address: str, chosen: Scheduler) -> Machine:
    command = tuple(chosen.command(place, _AGENT, ()))
    probe = tuple(chosen.command(place, PROBE, [*SERVING, "--name", place.name]))
    interface = job.interface or interface_of(node, address)
    return Machine(node, node.name, address, interface, command, probe, place.slots)


def _read_here(job: Job, *, addresses: bool | None = None) -> Node:
    wants_gpus = job.gpus is not None or job.nproc_per_node == "gpu"
    wants_gpus = wants_gpus or read_torch().cuda is not None
    return read_node(
        runs_dir=job.runs_dir,
        want_gpus=wants_gpus,
        quick=True,
        addresses=addresses,
        deadline_s=LAUNCH_DEADLINE_S,
    )


def _wanted(job: Job, hosts: Sequence[T]) -> Sequence[T]:
    """Return the hosts that become nodes and spares: the first `--nodes` and `--spare`, or all."""
    if "nodes" not in job.model_fields_set:
        return hosts
    wanted, spare = job.nodes.max + job.spare, f" and --spare {job.spare}" if job.spare else ""
    if wanted > len(hosts):
        raise UsageError(
            f"--nodes {job.nodes}{spare} is more than the hosts that are named: {len(hosts)}",
            f"--nodes {max(1, len(hosts) - job.spare)}, or name more hosts",
        )
    return hosts[:wanted]


def _board(tell: Tell, count: int) -> Callable[[Node], None]:
    """Return a function that tells of each node that has answered."""
    return lambda node: tell(_line(node)) if count <= _MOST_LINES and not node.problem else None


def _line(node: Node) -> str:
    software, gpus = node.software, len(node.nvml.present)
    torch = f"torch {software.torch}" if software.torch else "no torch"
    cores = f"{node.host.usable_cores or 1:g} cores"
    parts = [f"Python {software.python}", torch, f"{gpus} GPUs" if gpus else cores]
    return f"{node.name}: {', '.join(parts)}"


def _reached(
    job: Job, nodes: Sequence[Node], places: Mapping[str, Place], chosen: Scheduler, tell: Tell
) -> list[Node]:
    """Return the nodes that answered, if they are enough.

    Raises:
        NodesMissing: They are too few.
    """
    present = [node for node in nodes if not node.problem]
    missing = [node for node in nodes if node.problem]
    least = len(nodes) - job.spare
    if job.nodes.min < job.nodes.max:
        least = min(job.nodes.min, least)
    if len(present) < max(1, least):
        _tell_missing(missing, places, chosen, tell)
        names = ", ".join(node.name for node in missing)
        raise NodesMissing(f"{len(missing)} of {len(nodes)} nodes cannot be reached: {names}")
    for node in missing:
        tell(f"{node.name} is left out: {node.problem}")
    return present


def _require_different(nodes: Sequence[Node]) -> None:
    """Refuse two names of one machine: its processors and GPUs would be used twice.

    Raises:
        UsageError: There are two.
    """
    known: dict[tuple[str, frozenset[str]], str] = {}
    for node in nodes:
        nics = [nic for nic in node.host.nics if nic.name != LOOPBACK_INTERFACE]
        own = frozenset(a for nic in nics for a in (*nic.addresses, *nic.ipv6_addresses))
        first = known.setdefault((node.host.hostname, own), node.name)
        if own and first != node.name:
            raise UsageError(
                f"{first} and {node.name} are one machine: {node.host.hostname!r}",
                "leave one of them out; --no-check skips this check",
            )


def _tell_missing(
    missing: Sequence[Node], places: Mapping[str, Place], chosen: Scheduler, tell: Tell
) -> None:
    """Tell of each node that cannot be reached why, and what to do."""
    for node in missing[:_MOST_LINES]:
        tell(f"{node.name}: not reached: {node.problem}")
        if advice := chosen.cure(places[node.name].target, node.problem):
            tell(f"  {advice}")
    if more := missing[_MOST_LINES:]:
        tell(f"and {len(more)} more: {', '.join(node.name for node in more)}")


def _port(job: Job, machines: OtherMachines, head: str) -> int:
    if job.master_port is None:
        if (port := machines.free_port(head)) is None:
            raise NodesMissing(f"{head} has no free port, or answers no more", "try it again")
        return port
    if problem := machines.port_problem(head, job.master_port):
        raise MachineError(
            f"--master-port {job.master_port} {problem} on {head}",
            "leave --master-port out, and a free port is picked",
        )
    return job.master_port


def _require_script(
    job: Job, script: Path, workdir: Path, machines: OtherMachines, names: Sequence[str]
) -> None:
    """Refuse a script that is missing on a node, or another one there.

    Raises:
        MachineError: It is.
    """
    file = str(script.absolute()) if job.module else job.script
    found = machines.files(names, file, str(workdir))
    problems = [f"{name}: {each['problem']}" for name, each in found.items() if "problem" in each]
    if problems:
        raise MachineError(
            f"{file!r} cannot be read in {str(workdir)!r} on {'; '.join(problems)}",
            "--sync sends the project, --workdir names the directory there; --no-check skips this"
            " check",
        )
    own = sha256_of(script)
    if others := [name for name, each in found.items() if each.get("sha256") != own]:
        raise MachineError(
            f"{file!r} is another file on {', '.join(others)} than here",
            "--sync sends the project there; --no-check skips this check",
        )


def _addresses(
    place: Place, node: Node, nodes: Sequence[Node], interface: str | None
) -> Sequence[str]:
    """Return the addresses to try for a node, in order.

    Raises:
        MachineError: It has no such interface, or no address there.
    """
    if place.address:
        return (place.address,)
    if interface is None:
        own = node.host.nics
        return (
            *addresses_of(node, nodes, place.hostname),
            *(a for nic in own if nic.up for a in nic.ipv6_addresses),
        )
    nic = next((nic for nic in node.host.nics if nic.name == interface), None)
    if nic is None or not (*nic.addresses, *nic.ipv6_addresses):
        known = ", ".join(nic.name for nic in node.host.nics if nic.up)
        raise MachineError(
            f"--interface {interface} has no address on {node.name}",
            f"its interfaces: {known}" if known else "no interface is up there",
        )
    return (*nic.addresses, *nic.ipv6_addresses)


def _routes(nodes: Sequence[Node], places: Mapping[str, Place]) -> dict[str, str]:
    """Return the address of each node: the one by which it and the head have connected.

    Raises:
        NodesMissing: A node cannot reach the head.
    """
    head = nodes[0]
    if len(nodes) == 1:
        return {head.name: LOOPBACK}
    used: Counter[str] = Counter()
    found: dict[str, str] = {}
    for node in nodes[1:]:
        reach = next((r for r in node.reaches if r.target == head.name), None)
        if reach is None or reach.problem:
            why = f"{reach.address}: {reach.problem}" if reach else "its probe ended"
            raise NodesMissing(
                f"{node.name} cannot connect to {head.name}, the first node: {why}",
                "--interface names the network between the nodes; a firewall must allow all TCP"
                " ports between them",
            )
        found[node.name] = places[node.name].address or reach.source_address
        used[reach.target_address] += 1
    return {head.name: places[head.name].address or used.most_common(1)[0][0], **found}
