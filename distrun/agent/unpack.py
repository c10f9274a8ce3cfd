"""Unpacks a distrun that came through standard input, runs a module of it, and removes it.

`nodes/boot.py` runs this text where distrun is not installed. So it imports nothing of distrun,
and an older Python understands it as far as to the sentence that refuses it.
"""

import ctypes
import fcntl
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
import zipfile

PREFIX = "distrun-boot-"
MARK = "bootstrap.lock"
"""A file beside the package, locked while a process uses it. `boot/sitecustomize.py` and `main.py`
look for it by name."""
_PROBE_ONLY = "probe_only"
_OLDEST_PYTHON = (3, 10)
_LEFTOVER_AFTER_S = 24 * 3600.0
_PR_SET_CHILD_SUBREAPER = 36
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def run(archive: zipfile.ZipFile, module: str, arguments: "list[str]") -> None:
    """Unpack the archive, and run a module of it in a child; returns in the child alone.

    Args:
        archive: The open ZipFile.
        module: The module, to be run as `__main__`.
        arguments: Its arguments.
    """
    if sys.version_info < _OLDEST_PYTHON:
        found, needed = (".".join(map(str, v[:2])) for v in (sys.version_info, _OLDEST_PYTHON))
        sys.exit("%s is Python %s; distrun needs %s" % (sys.executable, found, needed))  # noqa: UP031
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until somebody removes the directory
    directory = _unpacked(archive)
    child = os.fork()
    if child:
        _wait_and_remove(child, directory)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    sys.path[:0] = [directory]
    sys.path.append(os.path.join(directory, _PROBE_ONLY))  # noqa: PTH118
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _unpacked(archive: zipfile.ZipFile) -> str:
    """Return a new directory of this user alone with the files of the archive."""
    directory = ""
    try:
        remove_leftovers(tempfile.gettempdir())
        directory = tempfile.mkdtemp(prefix=PREFIX)
        lock = os.open(os.path.join(directory, MARK), os.O_RDWR | os.O_CREAT, 0o600)  # noqa: PTH118
        archive.extractall(directory)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        at = os.path.dirname(directory) or "the temporary directory"  # noqa: PTH120
        sys.exit("distrun cannot be unpacked in %s: %s" % (at, error.strerror))  # noqa: UP031
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        pass  # this file system has no locks: see `_in_use`
    return directory


def _wait_and_remove(child: int, directory: str) -> None:
    """Wait for the child, and all that it leaves, pass signals on, and remove the directory."""
    alive = [child]

    def pass_on(signum: int, _: object) -> None:
        for pid in alive:
            os.kill(pid, signum)

    for signum in _ENDING:
        signal.signal(signum, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    os.close(0)  # its output stays open: its end says that nothing is left
    if sys.platform.startswith("linux"):  # the agent outlives a child that was killed
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    code = 1
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            break
        if pid == child:
            alive.clear()
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(code)


def remove_leftovers(directory: str) -> None:
    """Remove packages of this user that are a day old and that no process uses.

    They are left if the process that waits, too, is killed with SIGKILL.
    """
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
            try:
                facts = entry.stat(follow_symlinks=False)
                old = time.time() - facts.st_mtime > _LEFTOVER_AFTER_S
                if old and facts.st_uid == os.getuid() and not _in_use(entry.path):
                    shutil.rmtree(entry.path, ignore_errors=True)
            except OSError:
                pass  # it went meanwhile


def _in_use(directory: str) -> bool:
    try:
        lock = os.open(os.path.join(directory, MARK), os.O_RDWR)  # noqa: PTH118
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked; or this file system has no locks
        return True
    finally:
        os.close(lock)
    return False
