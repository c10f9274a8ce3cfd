"""What is wrong before a launch begins: each is a context around the launch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from distrun.listen import free_port
from tests.faults.running import NAMES, Running

Setting = Callable[[Running], AbstractContextManager[None]]
JOIN_TIMEOUT_S = 20.0
_CGROUP_NBYTES = 100 << 20
_CGROUPS = Path("/sys/fs/cgroup")


class NotHere(Exception):
    """This machine, or this launcher, cannot have the fault."""


def nothing(running: Running) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def on_a_full_disk(running: Running) -> Iterator[None]:
    """Record into a file system of 1 MB."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        raise NotHere("mounting a small disk needs root on Linux")
    disk = running.cwd / "runs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise NotHere("a tmpfs cannot be mounted here")
    if running.by == "torchrun":
        running.words += [f"--log-dir={disk}/logs", "--redirects=3"]
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@contextmanager
def with_a_small_cgroup(running: Running) -> Iterator[None]:
    """Make a memory cgroup of 100 MiB that the rank moves into."""
    is_v1 = (_CGROUPS / "memory").is_dir()
    limit = "memory.limit_in_bytes" if is_v1 else "memory.max"
    cgroup = _CGROUPS / ("memory" if is_v1 else "") / f"distrun-faults-{os.getpid()}"
    try:
        cgroup.mkdir()
        (cgroup / limit).write_text(str(_CGROUP_NBYTES))
    except OSError as error:
        raise NotHere(f"no memory cgroup can be made here: {error.strerror}") from None
    running.environ["FAULT_CGROUP"] = str(cgroup)
    if running.layout.is_remote:
        running.words.append(f"--env=FAULT_CGROUP={cgroup}")
    try:
        yield
    finally:
        cgroup.rmdir()


@contextmanager
def with_a_taken_port(running: Running) -> Iterator[None]:
    """Ask for a port on which another process listens already."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        running.words.append(f"--master-port={listener.getsockname()[1]}")
        yield


def by_hand(node: int, head: str) -> Setting:
    """Start one of two nodes alone, as a platform does that starts each by itself."""

    @contextmanager
    def setting(running: Running) -> Iterator[None]:
        port = free_port("127.0.0.1")
        running.node, running.master = node, f"{head}:{port}"
        if running.by == "distrun":
            running.words.append(f"--join-timeout={JOIN_TIMEOUT_S:g}")
            pet = {"NNODES": "2", "NODE_RANK": str(node), "NPROC_PER_NODE": "2"}
            pet |= {"MASTER_ADDR": head, "MASTER_PORT": str(port)}
            running.environ |= {f"PET_{key}": value for key, value in pet.items()}
        yield

    return setting


def with_second_host(name: str) -> Setting:
    """Name another host as the second one."""

    @contextmanager
    def setting(running: Running) -> Iterator[None]:
        running.names[1] = name
        yield

    return setting


@contextmanager
def with_the_second_host_off(running: Running) -> Iterator[None]:
    assert running.hosts
    running.hosts.power_off(NAMES[1])
    yield


@contextmanager
def with_an_agent_that_never_speaks(running: Running) -> Iterator[None]:
    """Let the probe of the second host become a program that reads, and never says a word."""
    silent = running.cwd / "silent"
    silent.mkdir()
    text = "import os\nos.execv = lambda *_: [data for data in iter(lambda: os.read(0, 1), b'')]\n"
    (silent / "sitecustomize.py").write_text(text)
    python = running.cwd / "python"
    only = f'[ "$(hostname)" != {NAMES[1]} ] || export PYTHONPATH={silent}'
    python.write_text(f'#!/bin/sh\n{only}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    running.words += [f"--python={python}", f"--join-timeout={JOIN_TIMEOUT_S:g}"]
    yield


@contextmanager
def with_names_on_loopback(running: Running) -> Iterator[None]:
    """Let each host's own name be 127.0.0.1 on it, as many distributions have it."""
    assert running.hosts
    for name in NAMES:
        running.hosts.write_hosts(name, {name: "127.0.0.1"})
    yield
