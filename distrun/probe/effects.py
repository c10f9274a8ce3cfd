"""Finds effects of a statement or expression that matter before torch is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Read later, or not by torch: setting them first is no reason for a cold start.
_HARMLESS = ("CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM")
_HARMLESS_PREFIXES = ("HF_", "WANDB_", "MLFLOW_", "MASTER_", "DISTRUN_")


def environment_write(node: ast.AST) -> str:
    """Return the variable that a statement sets and that torch may read, or "".

    A variable with an unknown name is `a variable`.
    """
    name = _variable(node)
    return "" if name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES) else name


def _variable(node: ast.AST) -> str:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
        if _is_environ(node.target):
            return "a variable"
    elif isinstance(node, ast.Delete):
        targets = node.targets
    if isinstance(node, ast.Assign) and _is_environ(node.value):
        return "a variable"  # by another name: what is done with it is not followed
    for target in _flat(targets):
        if isinstance(target, ast.Subscript) and _is_environ(target.value):
            return _constant(target.slice)
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute):
            if function.attr == "dict" and node.args and _is_environ(node.args[0]):
                return "a variable"  # unittest.mock.patch.dict
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
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("environ", "environb")


def _flat(targets: list[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        if isinstance(target, (ast.Tuple, ast.List)):
            yield from _flat(target.elts)
        else:
            yield target


def _constant(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "a variable"


def import_call(node: ast.AST) -> str:
    """Return the name in `import_module("name")` or `__import__("name")`, "" if it is neither."""
    if not isinstance(node, ast.Call) or not node.args:
        return ""
    called = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
    name = _constant(node.args[0])
    known = all(part.isidentifier() for part in name.split("."))
    return name if known and called in ("import_module", "__import__") else ""


def hidden_code(node: ast.AST) -> str:
    """Return `exec`, `importlib` and the like where a call runs code that cannot be read here."""
    if not isinstance(node, ast.Call):
        return ""
    called = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
    if called in ("import_module", "__import__"):
        return "" if import_call(node) else called
    if called == "CDLL" and "RTLD_GLOBAL" in ast.dump(node):
        return "CDLL"
    return called if called in ("exec", "run_path", "run_module") else ""


def asks_for_torch(expression: ast.expr) -> bool:
    """Return whether an expression reads sys.modules, and may look for torch there."""
    for_others: set[ast.expr] = set()
    for node in ast.walk(expression):  # the outer ones first
        if isinstance(node, ast.Compare):
            name, holder = node.left, node.comparators[0]
        elif isinstance(node, ast.Subscript):
            name, holder = node.slice, node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            name, holder = node.args[0], node.func.value
        elif _is_modules(node) and node not in for_others:
            return True
        else:
            continue
        if _is_another(name):
            for_others.add(holder)
    return False


def _is_modules(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "modules"
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    )


def _is_another(name: ast.expr) -> bool:
    """Return whether it is the name of a module other than torch, or `__name__`."""
    if isinstance(name, ast.Name):
        return name.id == "__name__"
    return isinstance(name, ast.Constant) and str(name.value).partition(".")[0] != "torch"
