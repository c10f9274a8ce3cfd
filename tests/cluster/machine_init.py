"""Process 1 of a machine of namespaces: mounts what is its own, then lives until stdin ends.

The order is one JSON line on stdin. `up` on stdout says that all is mounted. The end of stdin
ends it, and the kernel then kills every process of the machine: nothing outlives the test,
however that ended. Standard library only; it may hide the interpreter that runs it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

_STAGE = Path("/mnt")
"""A directory of every Linux in which no working tree is expected."""


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, timeout=20)


def bind(source: str | Path, target: str | Path) -> None:
    mount("--rbind", source, target)


def stage(paths: list[str], where: Path) -> dict[str, Path]:
    """Hold paths by a second mount each, which a mount over their directory cannot hide."""
    held = {}
    for number, path in enumerate(paths):
        at = where / str(number)
        at.mkdir() if Path(path).is_dir() else at.touch()
        bind(path, at)
        held[path] = at
    return held


def private(directories: dict[str, str], visible: list[str]) -> None:
    """Give the machine empty directories of its own, with the visible paths in them."""
    mount("-t", "tmpfs", "stage", _STAGE)
    held = stage(visible, _STAGE)
    for directory, size in directories.items():
        mount("-t", "tmpfs", "-o", f"size={size},mode={mode_of(directory)}", "own", directory)
    for path, at in held.items():
        if at.is_dir():
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
        mount("--move", at, path)
    subprocess.run(["umount", str(_STAGE)], check=True, timeout=20)


def mode_of(directory: str) -> str:
    return format(Path(directory).stat().st_mode & 0o7777, "o")


def own_sysfs() -> None:
    """Mount /sys again: it shows the network of the namespace that mounted it."""
    held = Path("/dev/shm/distrun-cgroup")
    held.mkdir()
    bind("/sys/fs/cgroup", held)
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("--move", held, "/sys/fs/cgroup")
    held.rmdir()


def without_python(directories: list[str]) -> None:
    """Show the programs of directories, but no interpreter."""
    for number, directory in enumerate(directories):
        real = Path("/run/distrun-programs") / str(number)
        real.mkdir(parents=True)
        bind(directory, real)
        names = [path.name for path in Path(directory).iterdir() if not path.match("python*")]
        mount("-t", "tmpfs", "own", directory)
        for name in names:
            (Path(directory) / name).symlink_to(real / name)


def reap(*_: object) -> None:
    """Collect the orphans of the machine."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # none is left


def main() -> None:
    order = json.loads(sys.stdin.readline())
    socket.sethostname(order["name"])
    for path, source in order["files"].items():
        bind(source, path)
    private(order["private"], order["visible"])
    own_sysfs()
    without_python(order["no_python_in"])
    for directory in order["hidden"]:
        mount("-t", "tmpfs", "own", directory)
    signal.signal(signal.SIGCHLD, reap)
    print("up", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
