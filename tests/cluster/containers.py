"""Containers for tests: podman with runc, a base made by mmdebstrap, the image of docker/.

Nothing is pulled. The base and the image are kept in podman's store under names that have the
hash of all that they are made of, so a later run makes only what has changed.

    python -m tests.cluster.containers

makes them in advance, where podman is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.needs import lacking

ROOT = Path(__file__).parents[2]
PROGRAMS = ("podman", "runc", "mmdebstrap", "prlimit")
LIMIT_S = 100.0
_BUILD_LIMIT_S = 1500.0
_LOCK = Path("/var/tmp/distrun-test-images.lock")
_LABEL = "distrun.test"
_BASE = (
    *("--variant=minbase", "--include=ca-certificates"),
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
    "bookworm",
)
"""Like Debian's slim image, with its certificates: a build has those of this machine mounted over
them, read-only."""
_SOURCES = ("docker", ".dockerignore", "pyproject.toml", "constraints.txt", "distrun", "recipes")
_CONFIG = """\
[engine]
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""
"""crun refuses hybrid control groups; root in a sandbox may not raise its own limits."""


def lacking_containers() -> str:
    """Return why no containers can be had here, or nothing."""
    return lacking(*PROGRAMS)


_NO_INDEX = re.compile(r"No matching distribution|Connection|Temporary failure|Could not resolve")
"""Words of pip and apt that mean: nothing can be installed in a container on this machine."""


class NothingToInstall(Exception):
    """What the image is made of cannot be had on this machine."""


class Podman:
    """Podman as these tests call it.

    Args:
        directory: For its configuration; the caller's.
    """

    def __init__(self, directory: Path) -> None:
        config = directory / "containers.conf"
        config.write_text(_CONFIG)
        # TMPDIR: builds need more space than a directory of tests may have
        self.environ = {**os.environ, "CONTAINERS_CONF": str(config), "TMPDIR": "/var/tmp"}

    def argv(self, *words: str) -> list[str]:
        """Return a command line of podman."""
        return [*limited(), "podman", *words]

    def __call__(
        self, *words: str, check: bool = True, limit_s: float = LIMIT_S, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run podman to its end; its output is text, stderr apart.

        Args:
            *words: Its arguments.
            check: Fail if it fails.
            limit_s: For how long it may run.
            **options: Of `subprocess.run`.
        """
        done = subprocess.run(
            self.argv(*words),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            **options,
        )
        if check and done.returncode:
            raise RuntimeError(f"podman {' '.join(words)}: {done.stderr[-4000:]}")
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what podman knows of a container or an image."""
        (found,) = json.loads(self("inspect", name).stdout)
        return dict(found)


def limited() -> list[str]:
    """Return what podman is started below: its defaults are above what root may set here."""
    return ["prlimit", "--nofile=4096:4096", "--nproc=4096:4096"]


def image(podman: Podman) -> str:
    """Return the name of the image of this work tree; it is built unless it is there.

    Raises:
        NothingToInstall: Debian's or Python's packages are out of reach.
        RuntimeError: A Dockerfile is wrong.
    """
    with _one_at_a_time():
        base = _base(podman)
        name = f"localhost/distrun-test:{_hash_of_sources(base)}"
        if podman("image", "exists", name, check=False).returncode:
            _build(podman, name, base)
            _remove_others(podman, name)
    return name


def _build(podman: Podman, name: str, base: str) -> None:
    mounts = [f"--volume={path}:{path}:ro" for path in _pip_files()]
    done = podman(
        *("build", "--pull=never", "--network=host", *mounts, f"--label={_LABEL}=image"),
        *(f"--build-arg=BASE={base}", "--build-arg=TORCH_INDEX=", "--tag", name),
        *("--file", str(ROOT / "docker/Dockerfile"), str(ROOT)),
        check=False,
        limit_s=_BUILD_LIMIT_S,
    )
    if done.returncode:
        said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        raise (NothingToInstall if _NO_INDEX.search(said) else RuntimeError)(said)


def _base(podman: Podman) -> str:
    """Return the name of an image like Debian's slim one, made by mmdebstrap."""
    name = f"localhost/distrun-test-base:{_hash(json.dumps(_BASE).encode())}"
    if not podman("image", "exists", name, check=False).returncode:
        return name
    with tempfile.TemporaryDirectory(prefix="distrun-base-", dir="/var/tmp") as directory:
        archive = f"{directory}/base.tar"
        words = ["mmdebstrap", *_BASE, archive]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_BUILD_LIMIT_S)
        if done.returncode:
            raise NothingToInstall(f"mmdebstrap: {done.stderr.strip()[-400:]}")
        podman("import", "--quiet", archive, name, limit_s=_BUILD_LIMIT_S)
    return name


def _remove_others(podman: Podman, name: str) -> None:
    """Remove the images of other work trees; their layers are kept by those that share them."""
    found = podman(
        "images", "--filter", f"label={_LABEL}=image", "--format", "{{.Repository}}:{{.Tag}}"
    )
    for other in found.stdout.split():
        if other != name and not other.startswith("<none>"):
            podman("rmi", other, check=False)  # it may be in use by another work tree


def _hash_of_sources(base: str) -> str:
    known = hashlib.sha256(base.encode())
    for place in _SOURCES:
        for path in sorted([ROOT / place, *(ROOT / place).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                known.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return known.hexdigest()[:16]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _pip_files() -> Iterator[str]:
    """Yield what pip reads on this machine: its settings, and indexes that are directories."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    named = re.findall(r"(?<![\w:/])(?:file://)?(/[\w./+-]+)", said)
    named += [str(Path.home() / ".config/pip"), "/etc/pip.conf", "/etc/xdg/pip"]
    named += ["/etc/hosts", "/etc/resolv.conf"]
    for path in sorted({re.sub("/simple/?$", "", name) for name in named}):
        if Path(path).exists():
            yield path


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold the lock of all test processes of this machine."""
    with _LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__" and not lacking_containers():
    with tempfile.TemporaryDirectory(prefix="distrun-podman-") as home:
        image(Podman(Path(home)))
