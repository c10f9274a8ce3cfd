"""Anonymizes snapshots for publication: removes names of hosts, users and paths.

In doubt text is removed: a message of ssh may contain any name.
"""

from __future__ import annotations

import dataclasses
import getpass
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distrun.env import is_secret
from distrun.probe.snapshot import Node
from distrun.spec.snapshot import node_of

_ADDRESS = re.compile(
    r"(?<![\w.:])((\d{1,3}\.){3}\d{1,3}|[\da-fA-F]*:[\da-fA-F:]*:[\da-fA-F:.]*)(%\w+)?(?!\.?\w)"
)
_EXAMPLE = ("192.0.2.", "2001:db8:")
"""Prefixes of addresses reserved for examples."""
_LOGIN = re.compile(r"[^\s'\"@:/]+@([\w.-]+)")
_DOMAIN = re.compile(r"(?<![\w.-])(?!distrun\.)([\w-]+\.){2,}(?!so\b|py\b)[A-Za-z]{2,}(?![\w-])")
_OF_SSH = re.compile(r"(?<=resolve hostname )[^\s:]+|[^\s\[\]]+(?=\]? port \d)")
_WHOLE_PATH = re.compile(r"(?<![^:])/[^:]*")
"""Fields that contain only this: their names may have spaces."""
_PATH = re.compile(r"(?<![\w*])/[^\s:;,'\"=()]+")
_RELATIVE_PATH = re.compile(r"[^:;,'\"=/]*/[^:;,'\"=]*")
_EVERYBODYS = re.compile(r"/(dev|proc|sys|etc|lib|lib64|usr/lib|usr/bin)(/(?!\.\.)[^/]*)*")
_FILE = re.compile(r"[\w.-]+\.(xml|json|conf|cfg|toml|ya?ml|txt|log|py|sh|so(\.\d+)*)")
_VERSIONS = ("vbios_version", "driver_version", "kernel", "torch", "python", "nccl", "distrun")
"""Facts that look like addresses and domains but are not."""
_UNMISTAKABLE = 4
"""Names of at least this length are replaced inside sentences too: `a` is an article."""
_SHORTEST_LOGIN = 3
_MASK = "***"


def anonymous(nodes: Sequence[Node]) -> list[Node]:
    """Return nodes named node0 and so on, with addresses reserved for examples."""
    scrubber = _Scrubber({word: new for word, new in _names(nodes) if word}, _own_login())
    return [node_of(scrubber.part(dataclasses.asdict(node)), Node, "") for node in nodes]


def _names(nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Yield each name to remove and its replacement; a later one takes precedence."""
    addresses, users = set(), set()
    for node in nodes:
        addresses |= {a for nic in node.host.nics for a in nic.addresses}
        addresses |= {*node.host.hostname_addresses, *(reach.address for reach in node.reaches)}
        users |= {p.user for gpu in node.nvml.gpus for p in gpu.processes or ()}
    for number, address in enumerate(sorted(a for a in addresses if _leads_out(a)), 1):
        yield address, f"2001:db8::{number:x}" if ":" in address else f"192.0.2.{number % 255}"
    for number, user in enumerate(sorted(users)):
        yield user, f"user{number}"
    for number, node in enumerate(nodes):
        for name in (node.host.hostname.partition(".")[0], node.host.hostname):
            yield name, f"node{number}"
    for number, node in enumerate(nodes):
        for name in (node.name.rpartition("@")[2], node.name):
            yield name, f"node{number}"


def _own_login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        return ""


def _leads_out(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return not (address.is_loopback or text.startswith("0.") or address.is_unspecified)


class _Scrubber:
    """Removes names from a snapshot.

    Args:
        names: Known names and their replacements.
        login: The caller's login.
    """

    def __init__(self, names: Mapping[str, str], login: str) -> None:
        self._names = names
        self._patterns = [
            (re.compile(rf"(?<![\w.]){re.escape(name)}(\.[A-Za-z][\w-]*)*(?!\w)"), new)
            for name, new in sorted(names.items(), key=lambda each: -len(each[0]))
            if len(name) >= _UNMISTAKABLE
        ]
        if len(login) >= _SHORTEST_LOGIN and login != "root":
            self._patterns.append((re.compile(rf"(?<!\w){re.escape(login)}(?!\w)"), "user"))

    def part(self, value: Any, key: str = "") -> Any:
        """Return a node's JSON, or a part of it, without names."""
        if key == "environ":
            return {name: self._variable(name, each) for name, each in value.items()}
        if isinstance(value, dict):
            return {inner: self.part(each, inner) for inner, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.part(each, key) for each in value]
        if not isinstance(value, str):
            return value
        if key == "command":
            return value.split()[0].rpartition("/")[2] if value.split() else ""
        if key == "runs_dir":
            return value and ("runs" if value.rpartition("/")[2] == "runs" else _MASK)
        return self._known(value) if key in _VERSIONS else self._text(value)

    def _variable(self, name: str, value: str) -> str:
        # The probe masks secrets, but a file may have been edited.
        if is_secret(name) or name.endswith(("HOSTID", "COMM_ID")):
            return _MASK
        return self._text(_RELATIVE_PATH.sub(_path, value))

    def _text(self, text: str) -> str:
        if text in self._names:
            return self._names[text]
        text = self._known(text)
        text = _WHOLE_PATH.sub(_path, text) if text.startswith("/") else _PATH.sub(_path, text)
        text = _LOGIN.sub(lambda found: f"user@{_host(found[1])}", text)
        text = _DOMAIN.sub("host", _ADDRESS.sub(_address, text))
        return _OF_SSH.sub(lambda found: _host(found[0]), text)

    def _known(self, text: str) -> str:
        for name, new in self._patterns:
            text = name.sub(new, text)
        return text


def _path(found: re.Match[str]) -> str:
    """Return a path that exists on every machine unchanged, else only the file name."""
    if _EVERYBODYS.fullmatch(found[0]):
        return found[0]
    name = found[0].rpartition("/")[2]
    return f"{_MASK}/{name}" if _FILE.fullmatch(name) else _MASK


def _address(found: re.Match[str]) -> str:
    text = re.sub("(?<!:):$", "", found[0])  # the period of the sentence
    many = "::" in text and len(text) > len("::1")  # a port may follow directly
    if text.startswith(_EXAMPLE) or not (many or _leads_out(text)):
        return found[0]
    return ("2001:db8::" if ":" in text else "192.0.2.0") + found[0][len(text) :]


def _host(name: str) -> str:
    """Return a host's known replacement, else a general one."""
    return name if re.fullmatch(r"node\d+", name) or name.startswith(_EXAMPLE) else "host"
