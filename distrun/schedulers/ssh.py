"""Machines that are reached with OpenSSH's own client, with the user's configuration and keys."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distrun.errors import UsageError
from distrun.nodes.boot import line_for_sh
from distrun.schedulers.place import Place
from distrun.spec.job import Settings

_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")


@contextmanager
def nodes(settings: Settings) -> Iterator[list[Place]]:
    """Yield the hosts of the settings; nobody holds them.

    Raises:
        UsageError: There are none.
    """
    if not settings.hosts:
        raise UsageError("--on ssh needs hosts", "--hosts a,b names them")
    yield [Place(host, host, python=settings.python or "") for host in settings.hosts]


def command(place: Place, module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a module there; its three streams are the module's."""
    line = line_for_sh(module, arguments, place.python)
    # The login shell may be any shell; it only starts sh.
    return [*_SSH, "--", place.target, f"exec sh -c {shlex.quote(line)}"]
