"""The script must exist and compile."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from distrun.errors import UsageError
from distrun.probe.script import Script


def check_script(name: str, script: Script, *, module: bool, recipes: Collection[str] = ()) -> None:
    """Refuse a script that no rank could run.

    Args:
        name: The name as typed.
        script: What the probe found.
        module: Whether it is the name of a module.
        recipes: Names of recipes, for the hint.

    Raises:
        UsageError: It is missing, not runnable, or has a syntax error.
    """
    if not script.error:
        return
    kind = "module" if module else "script"
    raise UsageError(f"{kind} {name!r} {script.error}", _hint(name, script, module, recipes))


def _hint(name: str, script: Script, module: bool, recipes: Collection[str]) -> str:
    if module:
        if "without a __main__" in script.error:
            return f"-m {name}.MODULE runs one of its modules"
        return "-m searches the current directory and the installed packages"
    if "syntax error" in script.error:
        return "fix that line; no rank was started"
    if script.error.startswith("is not Python"):
        return "--no-python runs a program that is not Python"
    if script.error == "is no executable program":
        return "--no-python searches PATH; a program of your own needs its path and chmod +x"
    if script.error == "is empty":
        return "name a script; is a variable of your shell empty?"
    if script.error == "is a directory":
        parts = Path(name).parts
        if parts and all(part.isidentifier() for part in parts):
            return f"-m {'.'.join(parts)} runs a package with a __main__.py"
        return "name a script in it"
    if script.error == "does not exist":
        parent = Path(name).parent
        nearby = [path.name for path in parent.glob("*.py")] if parent.is_dir() else []
        if (recipe := Path(name).stem) in recipes and f"{recipe}.py" not in nearby:
            return f"`distrun recipes copy {recipe}` writes the recipe of this name"
        if near := difflib.get_close_matches(Path(name).name, nearby, n=1, cutoff=0.5):
            return f"did you mean {str(parent / near[0])!r}?"
    return "a path is relative to the current directory"
