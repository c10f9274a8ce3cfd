"""The line for sh that starts a program of distrun on another machine."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import distrun
from distrun.agent_start import place_in_path

_BOOT = (
    "import json,runpy,sys;"
    "sys.path[:]=[p for p in sys.path if p];"  # not the current directory
    "at,path,module,sys.argv[1:]=json.loads(sys.argv[1]);"
    "sys.path.insert(at,path);"
    "runpy.run_module(module,run_name='__main__',alter_sys=True)"
)
"""One line, because csh accepts no line breaks."""
_UNPACK = "distrun/agent/unpack.py"
"""The file of the package that unpacks it."""
_BOOT_OF_PACKAGE = (
    "import base64,io,json,sys,zipfile;"
    "sys.path[:]=[p for p in sys.path if p];"
    "module,words=json.loads(sys.argv[1]);"
    "source,got=open(0,'rb',0,closefd=False),io.BytesIO();"  # nothing is read in advance
    "count=json.loads(source.readline().replace(bytes(1),b'')or sys.exit())['nbytes'];"
    "[got.write((source.read(count-got.tell())or sys.exit()).replace(bytes(1),b''))"
    " for _ in iter(lambda:got.tell()<count,False)];"
    "archive=zipfile.ZipFile(io.BytesIO(base64.b64decode(got.getvalue())));"
    "scope={'__name__':'unpack'};"
    f"exec(archive.read({_UNPACK!r}),scope);"
    "scope['run'](archive,module,words)"
)
"""The same where distrun is not installed: it reads what `package.package` returns."""


def line_for_sh(
    module: str, arguments: Sequence[str], python: str = "", *, bootstrap: bool = False
) -> str:
    """Return a line that runs a module from this distrun's path, if it exists there.

    Args:
        module: The module.
        arguments: Its arguments; nothing secret, because `ps` shows them.
        python: The interpreter there; "": this one's path if it exists there, else python3.
        bootstrap: Run the package that comes first through standard input, not what is there.
    """
    here = Path(distrun.__file__).parents[1]
    words = json.dumps([place_in_path(here), str(here), module, list(arguments)])
    boot = _BOOT
    if bootstrap:
        boot, words = _BOOT_OF_PACKAGE, json.dumps([module, list(arguments)])
    found = f"P={_quoted(python or sys.executable)}"
    if not python:
        found += '; test -x "$P" || P=python3'
    return f'{found}; exec "$P" -c {shlex.quote(boot)} {shlex.quote(words)}'


def _quoted(path: str) -> str:
    """Return a path as a word of sh; a `~` that no shell has replaced is the home there."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
