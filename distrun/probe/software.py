"""Reads versions of software from files, without importing it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from distrun import __version__
from distrun.probe.reading import Reading, Unread
from distrun.probe.snapshot import Software
from distrun.probe.torch_facts import read_torch, torch_directory

_WHEEL = re.compile(r"nvidia_nccl_cu\d+-([\d.]+)\.dist-info")
_LIBRARY = re.compile(r"libnccl\.so\.(\d+\.\d+[\d.]*)")
_SYSTEM_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64")


def read_software(root: Path = Path("/")) -> Software:
    """Take the snapshot."""
    torch = read_torch()
    found = Reading()
    if torch.cuda is None:
        found.missing["nccl"] = "this torch is a CPU build" if torch.version else "no torch"
    else:
        found.take("nccl", nccl_version, root, torch_directory())
    return Software(
        distrun=__version__,
        python=".".join(map(str, sys.version_info[:3])),
        torch=torch.version,
        torch_cuda=torch.cuda,
        **found.fields(),
    )


def nccl_version(root: Path, torch: Path | None) -> str:
    """Return the version of NCCL that torch loads.

    torch's wheels depend on a package with NCCL; other builds use the system's.

    Raises:
        Unread: No file name contains its version; it may be linked into torch.
    """
    site = torch.parent if torch else root / "none"
    for entry in sorted(site.glob("nvidia_nccl_cu*.dist-info")):
        if wheel := _WHEEL.fullmatch(entry.name):
            return wheel[1]
    for folder in _library_folders(root, torch):
        for library in sorted(folder.glob("libnccl.so*")):
            if named := _LIBRARY.fullmatch(library.resolve().name):
                return named[1]
    raise Unread("no file name contains its version")


def _library_folders(root: Path, torch: Path | None) -> Iterator[Path]:
    if torch:
        yield torch / "lib"
    yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    yield from (root / folder for folder in _SYSTEM_FOLDERS)
