"""An interpreter that has torch, and nothing of what distrun is installed with."""

from __future__ import annotations

import importlib.util
import sys
import venv
from pathlib import Path

_NEEDED = (
    *("torch", "torchgen", "functorch", "numpy", "typing_extensions", "sympy", "mpmath"),
    *("filelock", "jinja2", "markupsafe", "networkx", "fsspec"),
)


def make_interpreter(directory: Path) -> Path:
    """Make an environment of links to torch and its own requirements; return its interpreter."""
    venv.create(directory, symlinks=True, with_pip=False)
    site = site_of(directory / "bin/python")
    for name in _NEEDED:
        if (spec := importlib.util.find_spec(name)) is not None and spec.origin is not None:
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (site / source.name).symlink_to(source)
            if (libraries := source.with_name(f"{name}.libs")).exists():
                (site / libraries.name).symlink_to(libraries)
            for about in source.parent.glob(f"{name}-*.dist-info"):  # its entry points
                (site / about.name).symlink_to(about)
    return directory / "bin/python"


def site_of(python: Path) -> Path:
    """Return the directory of its packages."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return python.parents[1] / "lib" / version / "site-packages"
