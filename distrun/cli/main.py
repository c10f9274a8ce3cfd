"""The entry point, and the only place where an error becomes an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

from distrun.cli.screen.console import report_error
from distrun.errors import DistrunError, ExitCode, UsageError, require_supported_system


def main() -> None:
    """Run the command line."""
    _open_missing_streams()
    try:
        require_supported_system(sys.platform)
        # A file name may hold bytes that are not text: print them as they are.
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        _require_current_directory()
        from distrun.cli.app import app  # the commands need functions that other systems lack

        app(prog_name="distrun")  # under python -m too: the shell completes this name
    except DistrunError as error:
        report_error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit as end:
        why = end.__context__
        if isinstance(why, OSError) and why.errno == errno.EPIPE:  # typer makes 1 of it
            sys.exit(128 + signal.SIGPIPE)
        raise
    except Exception as error:  # any other exception is a fault of distrun
        if os.environ.get("DISTRUN_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            report_error(f"{error.filename or 'standard output'}: {error.strerror}")
            sys.exit(ExitCode.MACHINE)
        report_error(
            f"a fault of distrun itself: {type(error).__name__}: {error}",
            "`distrun --debug …` shows where; please report it",
        )
        sys.exit(ExitCode.INTERNAL)


def _open_missing_streams() -> None:
    """Open /dev/null in place of a closed stdin, stdout or stderr.

    Otherwise the next file that is opened would get the number, and the output.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", closefd=False))


def _require_current_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current directory is gone", "cd to one that exists") from None
