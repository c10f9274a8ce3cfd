"""Reads facts of the installed torch from its files: importing it would take a second."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TorchFacts:
    """The installed torch."""

    version: str
    """`2.13.0+cpu`; "" if torch is not installed."""
    cuda: str | None
    """The CUDA version of its build; None for a CPU build."""


def torch_directory() -> Path | None:
    """Return the directory of torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def read_torch() -> TorchFacts:
    """Take the snapshot."""
    directory = torch_directory()
    if directory is None:
        return TorchFacts("", None)
    try:
        text = (directory / "version.py").read_text()
    except OSError:
        return TorchFacts("", None)
    version = re.search(r"^__version__ = '([^']*)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=]*= '([^']*)'", text, re.MULTILINE)
    return TorchFacts(version[1] if version else "", cuda[1] if cuda else None)
