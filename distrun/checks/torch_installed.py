"""This interpreter needs torch."""

from __future__ import annotations

import shlex
import sys

from distrun.errors import MachineError
from distrun.probe.torch_facts import TorchFacts


def check_torch(torch: TorchFacts) -> None:
    """Refuse to start agents that could not import torch.

    Raises:
        MachineError: torch is not installed.
    """
    if not torch.version:
        raise MachineError(
            f"torch is not installed for {sys.executable}",
            f"{shlex.quote(sys.executable)} -m pip install torch",
        )
