"""Machines that are reached with OpenSSH's own client, with the user's configuration and keys."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distrun.errors import UsageError
from distrun.nodes.boot import line_for_sh
from distrun.schedulers.place import Place
from distrun.spec.job import Settings

_SSH = (
    *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"),
    # A user's tunnel can be opened once, and there are several connections; their command is ours.
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
_CURES = (
    (
        "cannot be unpacked in",
        "--bootstrap sends distrun to {host}, into its temporary directory, which needs some MB and"
        " must be writable",
    ),
    ("Permission denied", "`ssh-copy-id {host}`, or `ssh-add` the key: no password is asked for"),
    (
        "Host key verification failed",
        "`ssh {host}` once shows its key and asks whether to trust it; a changed one has to be"
        " removed first: `ssh-keygen -R {host}`",
    ),
    (
        "Connection refused",
        "is sshd running on {host}? HOST:PORT names another port, or [ADDRESS]:PORT of IPv6",
    ),
    ("Could not resolve hostname", "is {host} spelt right? `ssh {host}` has to work"),
    ("No route to host", "is {host} switched on, and in this network?"),
    ("Network is unreachable", "this machine has no way to the network of {host}"),
    ("timed out", "is {host} switched on? a firewall may drop connections to its sshd"),
    ("Connection closed", "sshd on {host} closed it: too many log-ins at once (MaxStartups)?"),
    ("Connection reset", "sshd on {host} closed it: too many log-ins at once (MaxStartups)?"),
    (
        "No module named",
        "distrun is missing there: --bootstrap sends it, --python names one with it",
    ),
    ("not found", "there is no such Python on {host}: --python names one"),
    ("No such file", "there is no such Python on {host}: --python names one"),
    ("account is", "the account on {host} may not log in"),
)
"""Words of ssh, or of the shell there -> what to do (ssh(1), sshd_config(5))."""


@contextmanager
def nodes(settings: Settings) -> Iterator[list[Place]]:
    """Yield the hosts of the settings; nobody holds them.

    Raises:
        UsageError: There are none.
    """
    if not settings.hosts:
        raise UsageError("--on ssh needs hosts", "--hosts a,b or --hostfile F names them")
    yield [
        Place(
            host.label,
            f"{host.user}@{host.name}" if host.user else host.name,
            port=host.port,
            python=host.python or settings.python or "",
            address=host.address or "",
            slots=host.slots,
            bootstrap=settings.bootstrap,
        )
        for host in settings.hosts
    ]


def command(place: Place, module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a module there; its three streams are the module's."""
    line = line_for_sh(module, arguments, place.python, bootstrap=place.bootstrap)
    # The login shell may be any shell; it only starts sh.
    return [*shell(place), "--", place.target, f"exec sh -c {shlex.quote(line)}"]


def shell(place: Place) -> list[str]:
    """Return the words of ssh before the host, which rsync uses too; none has a blank."""
    return [*_SSH, *(["-p", str(place.port)] if place.port else [])]


def cure(name: str, problem: str) -> str:
    """Return what to do about a host that cannot be reached, "" if that is unknown."""
    return next((text.format(host=name) for words, text in _CURES if words in problem), "")
