"""Whose a module is that a script imports, and whether it has to come before torch.

Simulators, index and point-cloud libraries demand it, and whoever brings a C++, OpenMP or
CUDA runtime of his own may crash or find the wrong one behind torch. So every installed
package counts as one that minds, but for those named here. A package may be added when its
import was seen to ask nobody for torch, to load none of those runtimes, and to set nothing
that torch reads.
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
"""What `import torch` may import by itself."""
_PLAIN_PYTHON = {
    *("absl", "click", "distrun", "dotenv", "einops", "filelock", "fire", "fsspec", "hydra"),
    *("loguru", "mpmath", "omegaconf", "packaging", "requests", "rich", "tabulate", "termcolor"),
    *("tqdm", "typer"),
}
_PLAIN_C = {"psutil", "yaml"}
"""With an extension in C that needs the C library alone."""
INDIFFERENT = PRELOADED | _PLAIN_PYTHON | _PLAIN_C
"""What may come before torch or behind it."""
BRINGS_TORCH = {
    *("accelerate", "lightning", "lightning_fabric", "pytorch_lightning", "timm", "torchvision"),
}
"""What imports torch itself before anything that could mind."""


def own_folder(module: str, import_dir: Path) -> Path | None:
    """Return the folder with the user's own top-level module; None if it is not the user's.

    Args:
        module: Its name, without dots.
        import_dir: The folder that the ranks look through first.
    """
    spec = _spec(module, import_dir)
    if spec is None:
        return None
    if spec.origin is None:  # a folder without __init__.py
        places = list(spec.submodule_search_locations or ())
        return None if not places or is_library(places[0]) else Path(places[0]).parent
    if not spec.origin.endswith(".py") or is_library(spec.origin):
        return None
    file = Path(spec.origin)
    return file.parent.parent if spec.submodule_search_locations else file.parent


def _spec(module: str, import_dir: Path) -> ModuleSpec | None:
    try:
        # The second looks where editable installations are, too.
        return PathFinder.find_spec(module, [str(import_dir), *sys.path]) or (
            importlib.util.find_spec(module)
        )
    except (ImportError, ValueError, OSError):
        return None


def is_extension(module: Path) -> bool:
    """Say whether a module's path without suffix is that of a compiled one."""
    return any(module.with_name(module.name + end).is_file() for end in EXTENSION_SUFFIXES)
