"""Two network namespaces that stand for two nodes, each with its own name and /etc/hosts."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import wait_until

NAMES = ("distrun-a", "distrun-b")
ADDRESSES = ("10.78.0.1", "10.78.0.2")
_NETNS = Path("/etc/netns")
"""`ip netns exec` mounts what lies here over /etc."""

needs_namespaces = [
    pytest.mark.root,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare"),
]


def ip(*words: str) -> str:
    """Run ip, and return what it printed."""
    command = ["ip", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout


def within(name: str, *words: str) -> list[str]:
    """Return a command as the node runs it: its network, its /etc/hosts, its hostname."""
    line = f"hostname {name}; exec {shlex.join(words)}"
    return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", line]


def hosts(name: str, **changed: str) -> None:
    """Write the /etc/hosts of a node: both names, as they are or as given."""
    known = dict(zip(NAMES, ADDRESSES, strict=True)) | {
        each.replace("_", "-"): address for each, address in changed.items()
    }
    lines = ["127.0.0.1 localhost", *(f"{address} {each}" for each, address in known.items())]
    (_NETNS / name / "hosts").write_text("\n".join(lines) + "\n")


@contextmanager
def two_nodes() -> Iterator[None]:
    """Make them, with a wire between; take them away at the end, whatever happened."""
    try:
        ip("netns", "add", NAMES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        ip("netns", "add", NAMES[1])
        veth = ("type", "veth", "peer", "name", "eth0", "netns", NAMES[1])
        ip("-n", NAMES[0], "link", "add", "eth0", *veth)
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            (_NETNS / name).mkdir(parents=True)
            (_NETNS / name / "nsswitch.conf").write_text("hosts: files\n")
            hosts(name)
        for name in NAMES:
            wait_until(lambda n=name: "state UP" in ip("-n", n, "link", "show", "eth0"), 10)
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
            shutil.rmtree(_NETNS / name, ignore_errors=True)
