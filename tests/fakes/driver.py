"""NVIDIA's driver, if there is one, and its stand-in for tests and the recorded snapshots."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


def has_real_driver() -> bool:
    """Say whether this machine has NVIDIA's own."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def build_driver(directory: Path, *flags: str) -> Path:
    """Compile libnvidia-ml.so.1 into a directory, which is returned for LD_LIBRARY_PATH."""
    library = directory / "libnvidia-ml.so.1"
    soname = "-Wl,-soname,libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", soname, *flags, "-o", library, SOURCE], check=True)
    return directory
