"""The script must be there and must compile."""

from __future__ import annotations

from pathlib import Path

from distrun.errors import UsageError, did_you_mean
from distrun.probe.script import Script


def check_script(name: str, script: Script, *, module: bool) -> None:
    """Refuse what no rank could run.

    Raises:
        UsageError: It is missing, not runnable, or has a syntax error.
    """
    if not script.error:
        return
    kind = "module" if module else "script"
    raise UsageError(f"{kind} {name!r} {script.error}", _hint(name, script, module=module))


def _hint(name: str, script: Script, *, module: bool) -> str:
    if "another interpreter" in script.error:
        return "--no-python runs a program that is not Python"
    if script.error == "does not exist":
        parent = Path(name).parent
        nearby = [path.name for path in parent.glob("*.py")] if parent.is_dir() else []
        hint = did_you_mean(Path(name).name, nearby) if nearby else ""
        return hint if hint.startswith("did") else ""
    if script.error == "is a directory":
        parts = Path(name).parts
        if not all(part.isidentifier() for part in parts):
            return ""
        return f"-m {'.'.join(parts)} runs a package with a __main__.py"
    if module and "not found" in script.error:
        return "-m looks in the current directory and in the installed packages"
    return ""
