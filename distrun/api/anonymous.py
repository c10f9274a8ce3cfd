"""Snapshots to show in public: the same facts without names of hosts, users and paths."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distrun.env import is_secret
from distrun.probe.snapshot import Node
from distrun.spec.snapshot import node_of

_HOME = re.compile(r"(/home/|/Users/)[^/\s:]+")
_UNMISTAKABLE = 4
"""From so many letters on a name is looked for inside of sentences too: `a` is an article."""
_MASK = "***"


def anonymous(nodes: Sequence[Node]) -> list[Node]:
    """Return nodes called node0 and so on, their addresses from those meant for examples."""
    names = {word: new for word, new in _names(nodes) if word}
    return [node_of(_scrubbed(dataclasses.asdict(node), names), Node, "") for node in nodes]


def _names(nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Yield each name that is to go, and what stands for it; a later one wins."""
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


def _leads_out(address: str) -> bool:
    is_address = re.fullmatch(r"[\d.]+|[\da-fA-F:]*:[\da-fA-F:.]*(%\w+)?", address)
    return bool(is_address) and not address.startswith(("127.", "0.")) and address != "::1"


def _scrubbed(value: Any, names: Mapping[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {inner: _scrubbed(each, names, inner) for inner, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(each, names, key) for each in value]
    if not isinstance(value, str):
        return value
    if is_secret(key):  # the probe has masked it; a file may have been written by hand
        return _MASK
    if key == "command":
        return value.split()[0].rpartition("/")[2] if value.split() else ""
    if key == "runs_dir":
        return value.rpartition("/")[2]
    return _text(value, names)


def _text(text: str, names: Mapping[str, str]) -> str:
    if text in names:
        return names[text]
    for name in sorted(names, key=len, reverse=True):
        if len(name) >= _UNMISTAKABLE and name in text:
            text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w])", names[name], text)
    return _HOME.sub(r"\1user", text)
