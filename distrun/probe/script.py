"""Reads a script without running it: does it compile, may it start warm."""

from __future__ import annotations

import ast
import errno
import hashlib
import importlib.machinery
import os
import re
import shutil
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from distrun.frames import is_distrun, is_library
from distrun.probe.before_torch import WARM_BY_FLAG, Reading

_IS_A_TOOL = f"an installed module may have to come before torch; {WARM_BY_FLAG}"


_OWN_DESCRIPTOR = re.compile(r"/dev/(stdin|fd)|/proc/[^/]+/fd")
"""It may be a file here, but a rank has another file there, or none."""


@dataclass(frozen=True)
class Script:
    """One script, module or program, before it is run."""

    path: Path | None
    """The file, or None."""
    error: str = ""
    """Why it cannot be run, as the end of a sentence."""
    cold_reason: str = ""
    """Why it would behave differently if torch were already imported."""
    suspicion: str = ""
    """Why it might behave differently."""


def read_script(name: str, *, module: bool, no_python: bool) -> Script:
    """Read the script `name`, relative to the current directory."""
    if no_python:
        found = shutil.which(name)
        return Script(Path(found)) if found else Script(None, "is not an executable program")
    if module:
        return _read_module(name)
    if not name:
        return Script(None, "is empty")
    path = Path(name)
    if path.is_dir():
        return Script(None, "is a directory")
    if not path.exists():
        return Script(None, "does not exist")
    if not path.is_file() or _OWN_DESCRIPTOR.match(str(path.absolute())):
        return Script(None, "is not a regular file, which every rank could read")
    return _read_python(path, path.resolve().parent)


def _read_module(name: str) -> Script:
    """Find a module as `python -m` would, without importing its packages."""
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    package = name.rpartition(".")[0]
    done = ""
    for part in name.split("."):
        done = f"{done}.{part}".removeprefix(".")
        spec = importlib.machinery.PathFinder.find_spec(done, search) if part else None
        if spec is None:
            return Script(None, f"is not a module: {done!r} was not found")
        search = list(spec.submodule_search_locations or ()) or [os.devnull]
    assert spec is not None
    if spec.submodule_search_locations:
        package = name
        spec = importlib.machinery.PathFinder.find_spec(f"{name}.__main__", search)
        if spec is None:
            return Script(None, "is a package without a __main__ module")
    if not spec.origin or not spec.origin.endswith(".py"):
        return Script(None, "is not a module written in Python")
    script = _read_python(Path(spec.origin), Path.cwd(), package)
    if is_library(spec.origin) and not is_distrun(spec.origin):
        return replace(script, suspicion=_IS_A_TOOL)  # what it runs is not read
    return script


def _read_python(path: Path, import_dir: Path, package: str = "") -> Script:
    try:
        source = path.read_bytes()
    except OSError as error:
        return Script(path, f"cannot be read: {error.strerror}")
    if source.startswith(b"#!") and b"python" not in source.partition(b"\n")[0]:
        return Script(path, "is not Python: its first line names another interpreter")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, str(path), "exec", dont_inherit=True)
            tree = ast.parse(source)
    except SyntaxError as error:
        if error.lineno is None:  # NUL bytes or an unknown encoding
            return Script(path, f"is not Python: {error.msg}")
        text = (error.text or "").strip()
        return Script(path, f"has a syntax error in line {error.lineno}: {error.msg}: {text}")
    except (ValueError, UnicodeDecodeError) as error:  # older Pythons raise this for the same
        return Script(path, f"is not Python: {error}")
    except (RecursionError, MemoryError):
        return Script(path, "is nested too deeply for Python's own parser")
    reading = Reading(import_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reading.import_module(import_dir, package)  # as -m does, before the module itself
        reading.read(tree, path.parent)
    return Script(path, cold_reason=reading.cold_reason, suspicion=reading.suspicion)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a regular file.

    Raises:
        OSError: It cannot be read.
    """
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return hashlib.sha256(file.read_bytes()).hexdigest()
