"""The line for sh that starts a program of distrun on another machine."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import distrun

_BOOT = (
    "import json,runpy,sys;"
    "sys.path[:]=[p for p in sys.path if p];"  # not the current directory
    "at,path,module,sys.argv[1:]=json.loads(sys.argv[1]);"
    "sys.path.insert(at,path);"
    "runpy.run_module(module,run_name='__main__',alter_sys=True)"
)
"""One line, because csh accepts no line breaks."""
_LAST = 1 << 16


def line_for_sh(module: str, arguments: Sequence[str], python: str = "") -> str:
    """Return a line that runs a module from this distrun's path, if it exists there.

    If other packages are in the same directory, it is searched last: they may be for another
    Python.

    Args:
        module: The module.
        arguments: Its arguments; nothing secret, because `ps` shows them.
        python: The interpreter there; "": this one's path if it exists there, else python3.
    """
    here = Path(distrun.__file__).parents[1]
    at = _LAST if here.name.endswith("-packages") else 0
    words = json.dumps([at, str(here), module, list(arguments)])
    found = f"P={shlex.quote(python or sys.executable)}"
    if not python:
        found += '; test -x "$P" || P=python3'
    return f'{found}; exec "$P" -c {shlex.quote(_BOOT)} {shlex.quote(words)}'
