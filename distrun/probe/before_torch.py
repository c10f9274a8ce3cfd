"""Finds what a script does before it imports torch, without running the script."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TypeGuard

from distrun.probe.effects import (
    asks_for_torch,
    environment_write,
    hidden_code,
    import_call,
)
from distrun.probe.import_order import (
    BRINGS_TORCH,
    INDIFFERENT,
    PRELOADED,
    is_extension,
    own_folder,
)

_MAX_FILES, _MAX_NBYTES = 200, 1 << 19
"""Limit on the user's own modules: reading them takes about a quarter of a second."""
WARM_BY_FLAG = "--start-method forkserver starts it warm"
_WARM_BY_ORDER = "import torch first, or give --start-method forkserver, to start warm"
_MAY_NOT_RUN = (
    *(ast.If, ast.While, ast.For, ast.match_case),
    *(ast.FunctionDef, ast.AsyncFunctionDef),
)


class Reading:
    """The statements of a script and of the user's modules, in the order they would run.

    It is not known whether a branch is taken or a function called. In doubt torch counts as not
    imported yet: an unnecessary cold start is only slower.
    """

    def __init__(self, import_dir: Path) -> None:
        self.suspicion = ""
        """Why torch may not be imported before the script, "" if there is no reason."""
        self._variable = ""
        """The first variable that is set before torch is imported, "" if there is none."""
        self._imported: set[str] = set()
        self._torch = False
        self._import_dir = import_dir
        self._seen: set[Path] = set()
        self._nbytes_left = _MAX_NBYTES
        importlib.invalidate_caches()  # a file may have been written just now

    @property
    def cold_reason(self) -> str:
        """Why torch must not be imported before the script, "" if there is no reason."""
        if self._variable:
            return f"it sets {self._variable} before it imports torch"
        for name in sorted(self._imported & PRELOADED):
            if any(file.is_file() for file in _files(self._import_dir / name)):
                return f"{name}.py beside it replaces a module that torch imports"
        return ""

    def read(self, tree: ast.Module, directory: Path) -> None:
        """Read a file in `directory`."""
        torch = self._torch
        try:
            self._follow(tree, directory)
        except RecursionError:  # a thousand branches, or modules that import one another
            self._torch = torch
            self._give_up()

    def import_module(self, base: Path, name: str) -> None:
        """Read the files below `base` that the import of a dotted name runs, if any."""
        for part in name.split(".") if name else ():
            base = base / part
            if is_extension(base):
                self._suspect_import(part)
            for file in _files(base):
                if file not in self._seen and file.is_file():
                    self._seen.add(file)
                    self._read_file(file)
                    break

    def _read_file(self, file: Path) -> None:
        try:
            self._nbytes_left -= file.stat().st_size
            if len(self._seen) > _MAX_FILES or self._nbytes_left < 0:
                self._give_up()
                return
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            return  # the script itself reports the error, or never imports it
        except (OSError, RecursionError, MemoryError):
            self._suspect_import(file.stem)
            return
        self.read(tree, file.parent)

    def _give_up(self) -> None:
        """Assume that the unread part imports anything."""
        self._imported |= PRELOADED
        self._suspect("it runs more code than distrun reads", _WARM_BY_ORDER)

    def _follow(self, node: ast.AST, directory: Path) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._import(alias.name)
        elif isinstance(node, ast.ImportFrom):
            self._import_from(node, directory)
        torch = self._torch
        self._note_write(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._evaluate(child)
            elif not (_only_for_checkers(node) and child in node.body):
                self._follow(child, directory)
        if isinstance(node, _MAY_NOT_RUN):
            self._torch = torch  # it may not run, or run later

    def _evaluate(self, expression: ast.expr) -> None:
        if self._torch:
            return
        for inner in ast.walk(expression):  # it may be nested too deeply to recurse
            self._note_write(inner)
            if name := import_call(inner):
                self._import(name)
            elif called := hidden_code(inner):
                self._suspect(f"it runs code by {called}", _WARM_BY_ORDER)
        if asks_for_torch(expression):
            self._suspect("it reads sys.modules")

    def _import_from(self, node: ast.ImportFrom, directory: Path) -> None:
        for _ in range(node.level - 1):
            directory = directory.parent
        for alias in node.names:  # each name may be a module
            name = f"{node.module or ''}.{alias.name}".removeprefix(".")
            if node.level:
                self.import_module(directory, name)
            else:
                self._import(name)
            if name == "sys.modules":
                self._suspect("it reads sys.modules")

    def _import(self, name: str) -> None:
        top = name.partition(".")[0]
        self._imported.add(top)
        if folder := own_folder(top, self._import_dir):
            self.import_module(folder, name)
        elif top not in INDIFFERENT and top not in BRINGS_TORCH:
            self._suspect_import(top)
        self._torch = self._torch or top == "torch" or (not folder and top in BRINGS_TORCH)

    def _note_write(self, node: ast.AST) -> None:
        if not self._torch:
            self._variable = self._variable or environment_write(node)

    def _suspect_import(self, module: str) -> None:
        self._suspect(f"it imports {module}", _WARM_BY_ORDER)

    def _suspect(self, what: str, cure: str = WARM_BY_FLAG) -> None:
        if not self._torch and not self.suspicion:
            self.suspicion = f"{what} before torch; {cure}"


def _files(module: Path) -> tuple[Path, Path]:
    return module / "__init__.py", module.with_name(module.name + ".py")


def _only_for_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    """Return whether it is `if TYPE_CHECKING:`, whose body does not run."""
    if not isinstance(node, ast.If):
        return False
    return "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", ""))
