"""Finds out which imported modules are the user's, and which may have to be imported before torch.

Simulators, index and point-cloud libraries require it. A package with its own C++, OpenMP or CUDA
runtime may crash or load the wrong one after torch. So every installed package counts as one that
must come first, except those named here. A package may be added if its import does not use torch,
loads none of those runtimes, and sets nothing that torch reads.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path

from distrun.frames import is_library

PRELOADED = sys.stdlib_module_names | {
    *("torch", "numpy", "torchgen", "sympy", "networkx", "typing_extensions", "pynvml")
}
"""Packages that `import torch` itself may import."""
_PLAIN_PYTHON = {
    *("absl", "click", "distrun", "dotenv", "einops", "filelock", "fire", "fsspec", "hydra"),
    *("loguru", "mpmath", "omegaconf", "packaging", "requests", "rich", "tabulate", "termcolor"),
    *("tqdm", "typer"),
}
_PLAIN_C = {"psutil", "yaml"}
"""Packages whose C extensions need only the C library."""
INDIFFERENT = PRELOADED | _PLAIN_PYTHON | _PLAIN_C
"""Packages that may be imported before or after torch."""
BRINGS_TORCH = {
    *("accelerate", "lightning", "lightning_fabric", "pytorch_lightning", "timm", "torchvision"),
}
"""Packages that import torch before any other package that could matter."""


def own_folder(module: str, import_dir: Path) -> Path | None:
    """Return the directory of the user's own top-level module; None if it is not the user's.

    Args:
        module: Its name, without dots.
        import_dir: The directory that the ranks search first.
    """
    spec = _spec(module, import_dir)
    if spec is None:
        return None
    if spec.origin is None:  # a directory without __init__.py
        places = list(spec.submodule_search_locations or ())
        return None if not places or is_library(places[0]) else Path(places[0]).parent
    if not spec.origin.endswith(".py") or is_library(spec.origin):
        return None
    file = Path(spec.origin)
    return file.parent.parent if spec.submodule_search_locations else file.parent


def _spec(module: str, import_dir: Path) -> ModuleSpec | None:
    try:
        # The second also finds editable installations.
        return PathFinder.find_spec(module, [str(import_dir), *sys.path]) or (
            importlib.util.find_spec(module)
        )
    except (ImportError, ValueError, OSError):
        return None


def is_extension(module: Path) -> bool:
    """Return whether a module path without suffix belongs to a compiled module."""
    return any(module.with_name(module.name + end).is_file() for end in EXTENSION_SUFFIXES)
