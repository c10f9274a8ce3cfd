"""Commands that start a probe on another machine: over ssh, or as a step of a Slurm job."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import distrun

_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
_BOOT = (
    "import json,runpy,sys;"
    "sys.path[:]=[p for p in sys.path if p];"  # not the current directory
    "at,path,sys.argv[1:]=json.loads(sys.argv[1]);"
    "sys.path.insert(at,path);"
    "runpy.run_module('distrun.probe',run_name='__main__',alter_sys=True)"
)
"""One line, because csh accepts no line breaks."""
_LAST = 1 << 16


def over_ssh(host: str, python: str) -> list[str]:
    """Return the command for one host.

    Args:
        host: Its name for ssh.
        python: The interpreter there; "": this one's path if it exists there, else python3.
    """
    # The login shell may be any shell; it only starts sh.
    return [*_SSH, "--", host, f"exec sh -c {shlex.quote(_script(host, python))}"]


def under_slurm(host: str, python: str, job_id: str) -> list[str]:
    """Return the command for one node of a Slurm job; it may overlap with other steps."""
    step = [f"--jobid={job_id}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={host}"]
    return ["srun", "--quiet", *step, "sh", "-c", _script(host, python)]


def _script(name: str, python: str) -> str:
    """Return a line for sh that starts the probe, from this distrun's path if it exists there.

    If other packages are in the same directory, it is searched last: they may be for another
    Python.
    """
    here = Path(distrun.__file__).parents[1]
    at = _LAST if here.name.endswith("-packages") else 0
    arguments = json.dumps([at, str(here), ["--serve", "--name", name]])
    found = f"P={shlex.quote(python or sys.executable)}"
    if not python:
        found += '; test -x "$P" || P=python3'
    return f'{found}; exec "$P" -c {shlex.quote(_BOOT)} {shlex.quote(arguments)}'
