"""`…/__main__.py RUN_DIR [FD]`: writes the report of a run that has just ended.

The supervisor starts it at the end, and does not wait: no run ends later or otherwise because
of its report. FD is the directory, held open.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from distrun.report.page import write_report
from distrun.runs.directory import RunDirectory
from distrun.runs.files import OpenDirectory

_LIMIT_S = 600
"""It never stays: a disk may hang."""


def main() -> None:
    """Write it."""
    signal.alarm(_LIMIT_S)
    held = OpenDirectory(int(sys.argv[2])) if len(sys.argv) > 2 else None
    write_report(RunDirectory(Path(sys.argv[1]), held))


if __name__ == "__main__":
    main()
