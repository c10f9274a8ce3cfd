"""The Python API: one command per file; each takes a spec and returns a frozen result.

    from distrun.api import Job, launch

    result = launch(Job(script="train.py", nodes=2))
    assert result.exit_code == 0, result.summary

Nothing here prints, or changes the caller's signal handlers, directory and children.
"""

from distrun.api.launch import LaunchResult, launch
from distrun.spec.job import Job

__all__ = ["Job", "LaunchResult", "launch"]
