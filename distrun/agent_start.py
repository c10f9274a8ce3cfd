"""The command line and the environment that an agent starts with, on any machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from distrun.env import TAG, booted

_COLD_AGENT = str(Path(__file__).parent / "agent" / "main.py")
_FIRST_PROCESS = (
    "import sys;"
    "sys.path[:]=[p for p in sys.path if p];"  # not the current directory
    "sys.path.insert(int(sys.argv[1]),sys.argv[2]);"
    "from distrun.agent.remote import main;"
    "main(greets=False)"
)
_LAST = 1 << 16


def own_path(program: str) -> str:
    """Return where a program of distrun is on this machine; its path begins in the package."""
    return str(Path(__file__).parent / program)


def place_in_path(directory: Path) -> int:
    """Return where in sys.path the directory with distrun goes: first, before another distrun.

    If other packages are in it, it is searched last: they may be for another Python.
    """
    return _LAST if directory.name.endswith("-packages") else 0


def agent_command(
    words: Sequence[str] | None, environ: Mapping[str, str], tag: str, order: Mapping[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Return the command line of an agent, and its environment.

    Args:
        words: What warm ranks, forked from the agent's own interpreter, will find as their
            command line, without the interpreter; None for cold ranks.
        environ: The environment of the agent, and so of its ranks.
        tag: The mark of the node's processes.
        order: Keyword arguments of the agent, as plain JSON.
    """
    if words is None:
        argv = [sys.executable, "-u", _COLD_AGENT, json.dumps(order)]
    else:
        argv = [sys.executable, "-u", *words]
        environ = booted(environ, role="agent", **order)
    return argv, {**environ, TAG: tag}


def become_agent() -> NoReturn:
    """Go on as the first process of a node, `agent.remote`, with the same three streams.

    The program is a new one: nothing of this process is left but its pid, its environment and its
    working directory. It needs no package beside distrun, so Python starts without site.
    """
    here = Path(__file__).parents[1]
    words = ["-S", "-c", _FIRST_PROCESS, str(place_in_path(here)), str(here)]
    os.execv(sys.executable, [sys.executable, *words])
