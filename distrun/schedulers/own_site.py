"""Makes the site of a job of which this machine is one node, and reaches no other."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from distrun.errors import MachineError
from distrun.listen import is_loopback
from distrun.nodes.reach import interface_of
from distrun.plan.site import Machine, Site
from distrun.probe.host import port_problem
from distrun.probe.snapshot import Node
from distrun.schedulers.place import OwnNode
from distrun.spec.job import Job

Tell = Callable[[str], None]
_RETRY_S = 1.0


def site_of(own: OwnNode, job: Job, node: Node, tell: Tell, *, starts: bool) -> Site:
    """Return the nodes of the job; those elsewhere are taken to be like this one.

    Args:
        own: What the platform says.
        job: The job.
        node: The snapshot of this machine, with the addresses of its interfaces.
        tell: Called with a line if the head's name does not resolve yet.
        starts: The job will be started: wait for the head's name, and require a free port.

    Raises:
        MachineError: The head's name does not resolve in time, or this is the head and its port
            is in use.
    """
    head = resolved(own, job.join_timeout if starts else 0.0, tell)
    here = own_address(own, head)
    if own.rank == 0:
        head = here
        if starts and (problem := port_problem(own.port)):
            raise MachineError(
                f"port {own.port} ({own.sources['master_port']}) {problem}",
                "--master-port names another one, the same on every node",
            )
    interface = job.interface or interface_of(node, here) or interface_of(node, _source(head))
    machines = (
        Machine(node, f"node{rank}", address, interface)
        for rank, address in enumerate(_addresses(own, head, here))
    )
    return Site(
        tuple(machines),
        own.port,
        emulated=False,
        own_node=own.rank,
        by_head=own.by_head,
        rdzv_id=own.rdzv_id,
    )


def _addresses(own: OwnNode, head: str, here: str) -> list[str]:
    """Return the address of each node, "" for those that nobody here knows."""
    found = list(own.addresses) or [""] * own.count
    found[0], found[own.rank] = head, here
    return found


def resolved(own: OwnNode, wait_s: float, tell: Tell) -> str:
    """Return the head's address; a cluster may know the name of a node only after its start.

    Raises:
        MachineError: It does not resolve in time.
    """
    deadline, told = time.monotonic() + wait_s, False
    while (found := _lookup(own.head)) is None:
        if time.monotonic() >= deadline:
            if not wait_s:
                return own.head  # only printed: each node resolves it
            raise MachineError(
                f"{own.sources['master_addr']}={own.head!r} did not resolve within {wait_s:g} s",
                f"`getent hosts {own.head}` has to work on this machine; --join-timeout waits"
                " longer for it",
            )
        if not told:
            told = True
            tell(f"waiting for the name of node 0, {own.head}, to resolve")
        time.sleep(min(_RETRY_S, max(0.0, deadline - time.monotonic())))
    return found


def _lookup(name: str) -> str | None:
    """Return an address, IPv4 if there is one; None if the name is unknown."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # unknown, or not a valid name (idna codec)
        return None
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def own_address(own: OwnNode, head: str) -> str:
    """Return this node's address: of the platform's list, else that of the way to the head."""
    if own.addresses:
        return own.addresses[own.rank]
    if own.rank > 0:
        return _source(head) or head
    if is_loopback(head) and not _names_loopback(own.head):
        # /etc/hosts may give a machine's own name 127.0.1.1, which is another one elsewhere.
        return _source("192.0.2.1") or head  # RFC 5737: the way out of here; nothing is sent
    return head


def _source(target: str) -> str:
    """Return the address from which this machine would connect to another; "" if unknown."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _names_loopback(name: str) -> bool:
    return name == "localhost" or is_loopback(name)
