"""What a script says of itself without being run: does it compile, may it start warm."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

# Read late enough, or by others than torch: setting them first is no reason to start cold.
_HARMLESS = ("CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM")
_HARMLESS_PREFIXES = ("HF_", "WANDB_", "MLFLOW_", "MASTER_", "DISTRUN_")
_PRELOADED = sys.stdlib_module_names | {"torch", "numpy", "torchgen", "sympy", "networkx"}


@dataclass(frozen=True)
class Script:
    """One script, module or program, before it is run."""

    path: Path | None
    """The file; None if there is none."""
    error: str = ""
    """Why it cannot be run, as the end of a sentence."""
    cold_reason: str = ""
    """Why an interpreter that has imported torch already would not be the same to it."""


def read_script(name: str, *, module: bool, no_python: bool) -> Script:
    """Take the snapshot of `name` as seen from the current directory."""
    if no_python:
        found = shutil.which(name)
        return Script(Path(found)) if found else Script(None, "is no executable program")
    if module:
        return _read_module(name)
    path = Path(name)
    if path.is_dir():
        return Script(None, "is a directory")
    if not path.exists():
        return Script(None, "does not exist")
    return _read_python(path, path.resolve().parent)


def _read_module(name: str) -> Script:
    """Find a module as `python -m` would, importing none of its packages."""
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    done = ""
    for part in name.split("."):
        done = f"{done}.{part}".removeprefix(".")
        spec = importlib.machinery.PathFinder.find_spec(done, search) if part else None
        if spec is None:
            return Script(None, f"is no module: {done!r} was not found")
        search = list(spec.submodule_search_locations or ()) or [os.devnull]
    assert spec is not None
    if spec.submodule_search_locations:
        spec = importlib.machinery.PathFinder.find_spec(f"{name}.__main__", search)
        if spec is None:
            return Script(None, "is a package without a __main__ module")
    if not spec.origin or not spec.origin.endswith(".py"):
        return Script(None, "is not a module written in Python")
    return _read_python(Path(spec.origin), Path.cwd())


def _read_python(path: Path, import_dir: Path) -> Script:
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
        text = (error.text or "").strip()
        return Script(path, f"has a syntax error in line {error.lineno}: {error.msg}: {text}")
    except (ValueError, UnicodeDecodeError) as error:  # NUL bytes, no known encoding
        return Script(path, f"is not Python: {error}")
    return Script(path, cold_reason=_cold_reason(tree, import_dir))


def _cold_reason(tree: ast.Module, import_dir: Path) -> str:
    seen: set[Path] = set()
    if name := _variable_set_before_torch(tree, import_dir, seen)[0]:
        return f"it sets {name} before it imports torch"
    try:
        siblings = {entry.name.removesuffix(".py") for entry in os.scandir(import_dir)}
    except OSError:
        return ""
    imported = {
        n.name.partition(".")[0]
        for s in ast.walk(tree)
        if isinstance(s, ast.Import)
        for n in s.names
    }
    imported |= {
        (s.module or "").partition(".")[0]
        for s in ast.walk(tree)
        if isinstance(s, ast.ImportFrom) and not s.level
    }
    if shadowing := sorted(imported & siblings & _PRELOADED):
        return f"{shadowing[0]}.py beside it takes the place of a module that torch imports"
    return ""


def _variable_set_before_torch(
    tree: ast.Module, import_dir: Path, seen: set[Path]
) -> tuple[str, bool]:
    """Return the first variable set at import, "" if none, and whether torch was met."""
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for node in ast.walk(statement):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for module in _imported(node):
                    if module.partition(".")[0] == "torch":
                        return "", True
                    sibling = import_dir / (module.replace(".", "/") + ".py")
                    if sibling in seen or not sibling.is_file():
                        continue
                    seen.add(sibling)
                    try:
                        inner = ast.parse(sibling.read_bytes())
                    except (SyntaxError, ValueError):
                        continue
                    name, met_torch = _variable_set_before_torch(inner, import_dir, seen)
                    if name or met_torch:
                        return name, met_torch
            elif (name := _environment_write(node)) and not _harmless(name):
                return name, False
    return "", False


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if node.module and not node.level else []


def _environment_write(node: ast.AST) -> str:
    """Return the name of the variable that a statement sets, "a variable" if unknown."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
    for target in targets:
        if isinstance(target, ast.Subscript) and _is_environ(target.value):
            return _constant(target.slice)
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute):
            if _is_environ(function.value) and function.attr in ("setdefault", "pop"):
                return _constant(node.args[0]) if node.args else "a variable"
            if _is_environ(function.value) and function.attr in ("update", "clear"):
                return "a variable"
            if function.attr in ("putenv", "unsetenv", "load_dotenv"):
                return _constant(node.args[0]) if node.args else "a variable"
        elif isinstance(function, ast.Name) and function.id in ("putenv", "load_dotenv"):
            return "a variable"
    return ""


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _constant(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "a variable"


def _harmless(name: str) -> bool:
    return name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)
