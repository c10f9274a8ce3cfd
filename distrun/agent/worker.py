"""From a fresh fork, or a fresh interpreter, to the user's script as `__main__`.

A warm worker must not be told apart from `python -u recipe.py`. So whatever ends the
script travels up to the interpreter's own top level, which then does what it always
does: tracebacks, exit codes, threading shutdown, atexit, and death by SIGINT after a
KeyboardInterrupt. Only the frames of this launcher are taken out of the traceback.
"""

from __future__ import annotations

import builtins
import faulthandler
import importlib.machinery
import io
import json
import os
import runpy
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distrun.processes import die_with_parent

STACKS_SIGNAL = getattr(signal, "SIGRTMAX", 0) and signal.SIGRTMAX - 3
"""On this signal a rank writes the stacks of its threads; users have no use for it."""
_HERE = str(Path(__file__).parent)


@dataclass(frozen=True)
class Reporter:
    """Tells the agent how the script ended, at the moment it did."""

    fd: int
    pid: int

    def uncaught(self, error: BaseException) -> None:
        """Report an exception that nobody caught, with the line of the user that raised it."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if not _is_library(f.filename)] or list(frames)
        last = own[-1] if own else None
        if isinstance(error, SyntaxError) and error.filename:
            last = traceback.FrameSummary(error.filename, error.lineno or 0, "<module>")
        self._send(
            report="error",
            type=type(error).__name__,
            message=_message(error),
            traceback="".join(traceback.format_exception(error)),
            file=last.filename if last else "",
            line=last.lineno if last else 0,
            function=last.name if last else "",
            source=(last.line or "") if last else "",
        )

    def exiting(self, code: object) -> None:
        """Report that the script asked to exit with a code other than 0."""
        if code not in (None, 0):
            self._send(report="exit", message="" if isinstance(code, int) else str(code))

    def _send(self, **record: object) -> None:
        if os.getpid() != self.pid:
            return  # a process that the script forked
        record["monotonic"] = time.monotonic()
        try:
            os.write(self.fd, json.dumps(record).encode() + b"\n")
        except OSError:
            pass  # the script closed what it did not open; the exit code still tells


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ of the user's must not hide the error
        return "<no message: its __str__ raised>"


def _is_library(filename: str) -> bool:
    return (
        filename.startswith(("<", str(Path(os.__file__).parent)))
        or f"{os.sep}site-packages{os.sep}" in filename
    )


def write_stacks_to(fd: int) -> None:
    """On a crash, or when the agent asks, write the Python stacks of all threads to `fd`."""
    faulthandler.enable(file=fd)
    if STACKS_SIGNAL:
        faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True)


def reseed_as_a_fresh_interpreter_would() -> None:
    """Give this fork its own random streams; `random` and `tempfile` do so by themselves."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()  # CUDA's generators are made after the fork


def run_as_main(arguments: list[str], reporter: Reporter) -> None:
    """Run `script args…` or `-m module args…` as the interpreter would.

    Raises:
        BaseException: Whatever the script ends with, for the interpreter to deal with.
    """
    sys.orig_argv = [sys.executable, "-u", *arguments]
    run = _run_module if arguments[0] == "-m" else _run_script
    try:
        run(arguments)
    except SystemExit as error:
        reporter.exiting(error.code)
        _destroy_gloo_groups()
        raise
    except BaseException as error:
        error.__traceback__ = _without_launcher(error.__traceback__)
        reporter.uncaught(error)
        sys.excepthook = _hiding_launcher(sys.excepthook)
        _destroy_gloo_groups()
        raise
    _destroy_gloo_groups()


def _run_script(arguments: list[str]) -> None:
    path = arguments[0]
    absolute = path if path.startswith("/") else f"{Path.cwd()}/{path}"  # python keeps a "./"
    sys.argv[:] = arguments
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.path.dirname(os.path.realpath(absolute)))  # noqa: PTH120 as site does
    loader = importlib.machinery.SourceFileLoader("__main__", absolute)
    main = _fresh_main()
    main.__file__ = absolute
    main.__loader__ = loader
    vars(main)["__cached__"] = None
    with io.open_code(absolute) as file:
        source = file.read()
    exec(compile(source, absolute, "exec", dont_inherit=True), vars(main))


def _run_module(arguments: list[str]) -> None:
    sys.argv[:] = ["-m", *arguments[2:]]
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(Path.cwd()))
    _fresh_main()
    runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]  # python -m calls it too


def _fresh_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins  # type: ignore[attr-defined]
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    if "__mp_main__" in sys.modules:
        sys.modules["__mp_main__"] = main  # multiprocessing, long imported, took ours for it
    return main


def _without_launcher(tb: types.TracebackType | None) -> types.TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_HERE):
        tb = tb.tb_next
    return tb


_Hook = Callable[[type[BaseException], BaseException, "types.TracebackType | None"], object]


def _hiding_launcher(hook: _Hook) -> _Hook:
    def show(
        kind: type[BaseException], error: BaseException, tb: types.TracebackType | None
    ) -> None:
        # The way up to the top level has added our frames again.
        error.__traceback__ = _without_launcher(error.__traceback__)
        try:
            hook(kind, error, _without_launcher(tb))
        except BaseException as broken:  # python prints this one as well
            broken.__traceback__ = _without_launcher(broken.__traceback__)
            raise

    return show


def _destroy_gloo_groups() -> None:
    """Close gloo's threads: left to the C++ teardown they abort one exit in some hundred.

    https://github.com/pytorch/pytorch/issues/69394 is of that family; only gloo, because
    closing NCCL's communicators may wait for the peers.
    """
    torch = sys.modules.get("torch")
    try:
        dist = torch.distributed if torch else None
        if dist and dist.is_available() and dist.is_initialized() and _is_gloo_alone(dist):
            dist.destroy_process_group()
    except Exception:  # a nicety: it must never turn the script's ending into another
        pass


def _is_gloo_alone(dist: types.ModuleType) -> bool:
    # "cpu:gloo", or "cpu:gloo,cuda:gloo" where gloo was asked for by name
    return all(part.endswith("gloo") for part in dist.get_backend_config().split(","))


def cold_main() -> None:
    """Entry of a fresh interpreter: `worker.py REPORT_FD STACKS_FD GUARD_FD script…|-m module…`."""
    report_fd, stacks_fd, guard_fd = (int(fd) for fd in sys.argv[1:4])
    for fd in (report_fd, stacks_fd, guard_fd):
        os.set_inheritable(fd, False)  # they came through one exec, and go no further
    die_with_parent(os.getppid(), guard_fd)
    write_stacks_to(stacks_fd)
    run_as_main(sys.argv[4:], Reporter(report_fd, os.getpid()))


if __name__ == "__main__":
    if sys.path and sys.path[0] == _HERE:
        del sys.path[0]
    cold_main()
