"""What a script says of itself without being run: does it compile, may it start warm."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

# Read late enough, or by others than torch: setting them first is no reason to start cold.
_HARMLESS = ("CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM")
_HARMLESS_PREFIXES = ("HF_", "WANDB_", "MLFLOW_", "MASTER_", "DISTRUN_")
_PRELOADED = sys.stdlib_module_names | {
    *("torch", "numpy", "torchgen", "sympy", "networkx", "typing_extensions", "pynvml")
}


_OWN_DESCRIPTOR = re.compile(r"/dev/(stdin|fd)|/proc/[^/]+/fd")
"""Though a file may be behind it, a rank has another one there, or none."""


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
    if not path.is_file() or _OWN_DESCRIPTOR.match(str(path.absolute())):
        return Script(None, "is not a regular file, which every rank could read")
    return _read_python(path, path.resolve().parent)


def _read_module(name: str) -> Script:
    """Find a module as `python -m` would, importing none of its packages."""
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    package = name.rpartition(".")[0]
    done = ""
    for part in name.split("."):
        done = f"{done}.{part}".removeprefix(".")
        spec = importlib.machinery.PathFinder.find_spec(done, search) if part else None
        if spec is None:
            return Script(None, f"is no module: {done!r} was not found")
        search = list(spec.submodule_search_locations or ()) or [os.devnull]
    assert spec is not None
    if spec.submodule_search_locations:
        package = name
        spec = importlib.machinery.PathFinder.find_spec(f"{name}.__main__", search)
        if spec is None:
            return Script(None, "is a package without a __main__ module")
    if not spec.origin or not spec.origin.endswith(".py"):
        return Script(None, "is not a module written in Python")
    return _read_python(Path(spec.origin), Path.cwd(), package)


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
        if error.lineno is None:  # NUL bytes, no known encoding
            return Script(path, f"is not Python: {error.msg}")
        text = (error.text or "").strip()
        return Script(path, f"has a syntax error in line {error.lineno}: {error.msg}: {text}")
    except (ValueError, UnicodeDecodeError) as error:  # what older Pythons say of the same
        return Script(path, f"is not Python: {error}")
    except (RecursionError, MemoryError):
        return Script(path, "is nested too deeply for Python's own parser")
    reading = _Reading(import_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reading.import_module(import_dir, package)  # as -m does, before the module itself
        reading.follow(tree, path.parent)
    return Script(path, cold_reason=_cold_reason(reading, import_dir))


def _cold_reason(reading: _Reading, import_dir: Path) -> str:
    if reading.variable:
        return f"it sets {reading.variable} before it imports torch"
    for name in sorted(reading.imported & _PRELOADED):
        if any(file.is_file() for file in _files(import_dir / name)):
            return f"{name}.py beside it takes the place of a module that torch imports"
    return ""


class _Reading:
    """The statements of a script and of the modules beside it, in the order they would run.

    Whether a branch is taken or a function called is not known. When in doubt torch is
    taken as not imported yet: a script that starts cold without need is merely slower.
    """

    def __init__(self, import_dir: Path) -> None:
        self.variable = ""
        """The first variable that is set before torch is imported, "" if none."""
        self.imported: set[str] = set()
        self._torch = False
        self._import_dir = import_dir
        self._seen: set[Path] = set()

    def follow(self, node: ast.AST, directory: Path) -> None:
        """Read a tree of a file that lies in `directory`."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.import_module(self._import_dir, alias.name)
                self._note(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = directory if node.level else self._import_dir
            for _ in range(node.level - 1):
                base = base.parent
            for alias in node.names:  # each may be a module
                self.import_module(base, f"{node.module or ''}.{alias.name}".removeprefix("."))
            if not node.level:
                self._note(node.module or "")
        torch = self._torch
        self._note_write(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                for inner in ast.walk(child):  # an expression may be too deep to recurse into
                    self._note_write(inner)
            else:
                self.follow(child, directory)
        if isinstance(node, (ast.If, ast.FunctionDef, ast.AsyncFunctionDef)):
            self._torch = torch  # it may never run, or run later

    def _note(self, module: str) -> None:
        top = module.partition(".")[0]
        self.imported.add(top)
        self._torch = self._torch or top == "torch"

    def _note_write(self, node: ast.AST) -> None:
        if not self._torch and (name := _environment_write(node)) and not _harmless(name):
            self.variable = self.variable or name

    def import_module(self, base: Path, name: str) -> None:
        """Read the files below `base` that the import of a dotted name runs, if any."""
        for part in name.split(".") if name else ():
            base = base / part
            for file in _files(base):
                if file in self._seen or not file.is_file():
                    continue
                self._seen.add(file)
                try:
                    self.follow(ast.parse(file.read_bytes()), file.parent)
                except (OSError, SyntaxError, ValueError):
                    continue  # the script itself may say so, or never import it
                break


def _files(module: Path) -> tuple[Path, Path]:
    return module / "__init__.py", module.with_name(module.name + ".py")


def _environment_write(node: ast.AST) -> str:
    """Return the name of the variable that a statement sets, "a variable" if unknown."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
        if _is_environ(node.target):
            return "a variable"
    elif isinstance(node, ast.Delete):
        targets = node.targets
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
