"""Facts of the installed torch, read from its files: importing it would take a second."""

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
    """The CUDA version it was built for, None for a CPU build."""


def read_torch() -> TorchFacts:
    """Take the snapshot."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchFacts("", None)
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return TorchFacts("", None)
    version = re.search(r"^__version__ = '([^']*)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=]*= '([^']*)'", text, re.MULTILINE)
    return TorchFacts(version[1] if version else "", cuda[1] if cuda else None)
