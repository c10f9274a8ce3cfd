"""The entry, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys

from distrun.cli.console import report_error
from distrun.errors import DistrunError, ExitCode, require_supported_system


def main() -> None:
    """Run the command line."""
    try:
        require_supported_system(sys.platform)
        # A file name may hold bytes that are no text: print them as they are.
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        from distrun.cli.app import app  # the commands need what other systems do not have

        app()
    except DistrunError as error:
        report_error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:  # the last resort: whatever is left is our own fault
        if os.environ.get("DISTRUN_DEBUG"):
            raise
        report_error(
            f"a fault of distrun itself: {type(error).__name__}: {error}",
            "`distrun --debug …` shows where; please report it",
        )
        sys.exit(ExitCode.INTERNAL)
