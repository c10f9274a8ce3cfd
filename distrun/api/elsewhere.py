"""The commands that start a probe on other machines: over ssh, or as steps of a Slurm job."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import distrun

_SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
_BOOT = (
    "import json,runpy,sys;"
    "sys.path[:]=[p for p in sys.path if p];"  # not the directory that it happens to start in
    "at,path,sys.argv[1:]=json.loads(sys.argv[1]);"
    "sys.path.insert(at,path);"
    "runpy.run_module('distrun.probe',run_name='__main__',alter_sys=True)"
)
"""One line, because csh takes no others."""
_LAST = 1 << 16


def over_ssh(host: str, python: str) -> list[str]:
    """Return the command for one host.

    Args:
        host: Its name, as ssh takes it.
        python: The interpreter there; "" is this one's path if it is there, else python3.
    """
    # The login shell may be any: it only has to know how to start sh.
    return [*_SSH, "--", host, f"exec sh -c {shlex.quote(_script(host, python))}"]


def under_slurm(host: str, python: str, job_id: str) -> list[str]:
    """Return the command for one node of a Slurm job, beside what else runs on it."""
    step = [f"--jobid={job_id}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={host}"]
    return ["srun", "--quiet", *step, "sh", "-c", _script(host, python)]


def _script(name: str, python: str) -> str:
    """Return a line for sh that starts the probe, from this distrun where it is there too.

    Beside other packages, which may be for another Python, it is looked for last.
    """
    here = Path(distrun.__file__).parents[1]
    at = _LAST if here.name.endswith("-packages") else 0
    arguments = json.dumps([at, str(here), ["--serve", "--name", name]])
    found = f"P={shlex.quote(python or sys.executable)}"
    if not python:
        found += '; test -x "$P" || P=python3'
    return f'{found}; exec "$P" -c {shlex.quote(_BOOT)} {shlex.quote(arguments)}'
