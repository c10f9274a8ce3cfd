"""Private names of torch stand in `torch_private.py` and `torch_fakes.py`, and nowhere else."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import (
    OF_WORKERS,
    ROOT,
    THIRD_PARTY,
    module_name,
    python_files,
    room_of,
)
from tests.unit.torch_private.test_elastic_hooks import HOOKS

OF_A_NAMEDTUPLE = {"_replace", "_asdict", "_fields"}
FILES = [
    file
    for file in python_files("distrun", "recipes")
    if room_of(module_name(file)) in THIRD_PARTY["torch"] - OF_WORKERS
] + python_files("benchmarks")


def is_private(name: str) -> bool:
    return any(p.startswith("_") and not p.startswith("__") for p in name.split("."))


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield what a file names of others that begins with an underscore."""
    own = {"self", "cls", "super()", *names_of_its_own(tree)}
    mine = {n.attr for n in ast.walk(tree) if is_attribute_of(n, {"self"})} | OF_A_NAMEDTUPLE
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("torch."))
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in whole if name.startswith("torch."))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not is_attribute_of(node, own) and node.attr not in mine:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            called, of, name = ast.unparse(node.func), *node.args[:2]
            asks = called in {"getattr", "hasattr", "setattr"} and isinstance(name, ast.Constant)
            if asks and ast.unparse(of) not in own and name.value not in mine:
                yield f"{ast.unparse(of)}.{name.value}"


def names_of_its_own(tree: ast.Module) -> Iterator[str]:
    """Yield a file's classes, and Python's own modules: what is private there is not torch's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in sys.stdlib_module_names)


def is_attribute_of(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) in names


def inherited_names(tree: ast.Module) -> Iterator[str]:
    """Yield the underscored names of torch that a subclass overrides or calls."""
    known = dict(imported_names(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [found for base in node.bases if (found := resolved(base, known)) is not None]
        for name in names_within(node):
            if is_private(name) and any(hasattr(base, name) for base in bases):
                yield f"{node.name}.{name}"


def imported_names(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and of_torch(str(node.module)):
            yield from ((a.asname or a.name, (str(node.module), a.name)) for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.asname or "torch", (a.name, "")) for a in node.names if of_torch(a.name))


def of_torch(module: str) -> bool:
    return module.partition(".")[0] == "torch" or module.removeprefix("distrun.") in OF_WORKERS


def resolved(base: ast.expr, known: dict[str, tuple[str, str]]) -> object | None:
    """Return the class of torch that is meant, or None for one of another package."""
    first, *rest = ast.unparse(base).split(".")
    if first not in known:
        return None
    module, name = known[first]
    found: object = importlib.import_module(module.partition(".")[0] if not name else module)
    for part in [name, *rest] if name else rest:
        found = getattr(found, part)
    return found


def names_within(body: ast.ClassDef) -> set[str]:
    return {node.name for node in body.body if isinstance(node, ast.FunctionDef)} | {
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_names_nothing_private_of_torch(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {name for name in private_names(tree) if is_private(name)}
    found |= set(inherited_names(tree))
    if file == ROOT / "distrun/agent/engine.py":
        found -= {f"_WarmAgent.{hook}" for hook in HOOKS}
    assert not found


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from torch.utils._pytree import tree_map", "torch.utils._pytree.tree_map"),
        ("import torch._C", "torch._C"),
        ("from torch.nn import _reduction", "torch.nn._reduction"),
        ("import torch\ntorch._foreach_mul_(a, 2)", "torch._foreach_mul_"),
        ("group._get_backend(device)", "group._get_backend"),
        ("getattr(mesh, '_pg_registry', {})", "mesh._pg_registry"),
        (
            "import torch\nclass S(torch.amp.GradScaler):\n  def _unscale_grads_(self): pass",
            "S._unscale_grads_",
        ),
        (
            "from torch import nn\nclass M(nn.Module):\n  def f(self): self._apply(1)",
            "M._apply",
        ),
    ],
)
def test_a_private_name_is_found(code: str, name: str) -> None:
    tree = ast.parse(code)
    found = [n for n in private_names(tree) if is_private(n)] + list(inherited_names(tree))
    assert found == [name]
