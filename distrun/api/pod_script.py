"""Reads the script that a ConfigMap brings into the pods."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from distrun.errors import UsageError
from distrun.schedulers.kubernetes.manifest import ScriptFile


def read_pod_script(path: Path) -> ScriptFile:
    """Return a script that compiles.

    Raises:
        UsageError: It imports a file beside it, which would not be there.
    """
    content = path.read_bytes()
    if beside := sorted(set(_imported_beside(content, path.resolve().parent))):
        raise UsageError(
            f"--configmap brings {path.name!r} alone, and it imports {', '.join(beside)} beside it",
            "put the files into the image, and leave --configmap out",
        )
    return ScriptFile(path.name, content)


def _imported_beside(source: bytes, directory: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            first = directory / name.partition(".")[0]
            for file in (first.with_suffix(".py"), first / "__init__.py"):
                if file.is_file():
                    yield str(file.relative_to(directory))
