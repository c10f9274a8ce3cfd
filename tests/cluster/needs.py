"""What machines of namespaces need of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def program_path(name: str) -> str | None:
    """Return where a program is, also one for root that is not on everyone's PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def lacking(*programs: str) -> str:
    """Return why machines cannot be made here, or nothing. `programs` are needed besides."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    for program in ("ip", "unshare", "nsenter", "mount", *programs):
        if program_path(program) is None:
            return f"needs {program}"
    words = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "true"]
    tried = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""
