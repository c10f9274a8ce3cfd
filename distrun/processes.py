"""Processes of a run: end them with their parent, find them by a tag, and kill them all.

A run sets one environment variable (`distrun.env.TAG`) in every process that it starts, so
grandchildren inherit it. On Linux this uses PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER (prctl(2))
and /proc. Elsewhere it uses a pipe and `ps`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from distrun.env import TAG

LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_F_SETPIPE_SZ = 1031  # Python's fcntl has the name on Linux only
_SWEEP_LIMIT_S = 2.0


def die_with_parent(parent_pid: int, guard_fd: int | None = None) -> None:
    """Make the kernel send SIGKILL to this process when its parent ends.

    Args:
        parent_pid: The parent's pid, read before the fork; if it has ended already, this process
            ends at once.
        guard_fd: Read end of a pipe whose only writer is the parent. Used where the kernel has no
            PR_SET_PDEATHSIG; a thread of this process reads it.
    """
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    elif guard_fd is not None:
        threading.Thread(target=_die_at_eof, args=(guard_fd,), daemon=True).start()
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def wake_when_parent_ends() -> None:
    """Make the kernel continue this process, if it is stopped, when its parent ends (Linux)."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _die_at_eof(guard_fd: int) -> None:
    while os.read(guard_fd, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies (Linux only)."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


def start_time(pid: int) -> str:
    """Return the start time of a process, in the system's format, or "" if it is not alive.

    pid and start time together identify one process. A zombie counts as dead.
    """
    if LINUX:
        fields = _stat_fields(pid)
        return "" if not fields or fields[0] in "ZX" else fields[19]
    ps = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return ps.stdout.strip()


def state_of(pid: int) -> str:
    """Return the state of a process as one letter of proc(5), "" if it is not known."""
    return next(iter(_stat_fields(pid)), "")


def _stat_fields(pid: int | str) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on."""
    found = stat_of(pid)
    return found[1] if found else []


def stat_of(pid: int | str) -> tuple[str, list[str]] | None:
    """Return the name in /proc/PID/stat, which may hold any characters, and the fields after it."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # a third of Path's time
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    before, _, after = text.rpartition(")")
    return before.partition("(")[2], after.split()


def marked(tag: str) -> list[int]:
    """Return the pids of live processes whose tag is `tag`, or begins with `tag` and a slash."""
    begins = f"{TAG}={tag}"
    return [
        pid
        for pid, environ in _environments()
        if any(v == begins or v.startswith(begins + "/") for v in environ if v.startswith(TAG))
    ]


def _environments() -> Iterator[tuple[int, list[str]]]:
    if not LINUX:
        ps = subprocess.run(
            ["ps", "-axEww", "-o", "pid=,command="],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ.get("PATH", "/bin:/usr/bin")},  # else `ps` would find itself
        )
        for line in ps.stdout.splitlines():
            pid, _, rest = line.strip().partition(" ")
            yield int(pid), rest.split(" ")
        return
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                block = Path(entry.path, "environ").read_bytes()
            except OSError:  # gone, or another user's
                continue
            yield int(entry.name), block.decode(errors="replace").split("\0")


class LeftBehind(NamedTuple):
    """A process of a run that no rank is above any more."""

    name: str
    parent: int


def left_behind(tag: str, root: int, beside: Collection[int]) -> dict[int, LeftBehind]:
    """Return the live processes of a run that are below no rank, by pid (Linux alone).

    Args:
        tag: Their tag; descendants of `root` count without it too.
        root: The process that has adopted them; not counted itself.
        beside: Children of `root` that are not counted, nor their descendants.
    """
    if not LINUX:
        return {}
    stats = {
        int(e.name): s for e in os.scandir("/proc") if e.name.isdigit() if (s := stat_of(e.name))
    }
    ours = set(marked(tag))
    found = {}
    for pid, (name, fields) in stats.items():
        line, parent = [pid], pid
        while (parent := int(stats[parent][1][1])) in stats and parent not in line:
            line.append(parent)
        is_ours = pid != root and (pid in ours or root in line)
        if is_ours and fields[0] not in "ZX" and not any(pid_ in line for pid_ in beside):
            found[pid] = LeftBehind(name, int(fields[1]))
    return found


def descendants(pid: int) -> list[int]:
    """Return the live descendants of a process, nearest first (Linux; none elsewhere)."""
    if not LINUX:
        return []
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := _stat_fields(entry.name)) and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for child in found:
        found += children.get(child, ())
    return found


def sweep(tag: str, *, below: int | None = None, spare: Collection[int] = ()) -> int:
    """Send SIGKILL to every process with `tag`, and to every descendant of `below`.

    Repeats until none is left, because a process may fork while it is being killed. Gives up after
    two seconds on processes that cannot be killed (uninterruptible sleep).

    Returns:
        The number of processes that SIGKILL was sent to.
    """
    killed: set[int] = set()
    keep = {os.getpid(), *spare}
    deadline = time.monotonic() + _SWEEP_LIMIT_S
    while time.monotonic() < deadline:
        if below is not None:
            reap_children()
        left = set(marked(tag)) | set(descendants(below) if below is not None else ())
        left -= keep
        if not left:
            break
        # multiprocessing's resource tracker ends by itself after its users, and removes their files
        # in /dev/shm. It is killed only if it does not end.
        patient = time.monotonic() < deadline - _SWEEP_LIMIT_S / 2
        doomed = {pid for pid in left if not (patient and is_resource_tracker(pid))}
        keep |= {pid for pid in doomed if not send(pid, signal.SIGKILL)}
        killed |= doomed
        time.sleep(0.01)
    return len(killed)


def is_resource_tracker(pid: int) -> bool:
    """Return whether a process is multiprocessing's resource tracker; it ends after its users."""
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def reap_children() -> None:
    """Reap children that have ended and that nothing else waits for."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def send(pid: int, signum: int) -> bool:
    """Send a signal; return False if the process has ended, or is another user's (sudo, ping)."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def send_to_main_thread(pid: int, signum: int) -> None:
    """Send a signal to the first thread of a process, if it still exists.

    The kernel may give a signal to the process to any thread that does not block it (signal(7)).
    """
    try:
        tgkill = ctypes.CDLL(None).tgkill
    except AttributeError:  # not Linux, or a C library before glibc 2.30
        send(pid, signum)
    else:
        tgkill(pid, pid, signum)


def send_group(pgid: int, signum: int) -> None:
    """Send a signal to a process group, if it still exists."""
    try:
        os.killpg(pgid, signum)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        pass


def widen_pipe(fd: int, nbytes: int = 1 << 20) -> None:
    """Set the size of a pipe's buffer, if the system allows it."""
    if LINUX:
        import fcntl  # missing on systems that distrun refuses with a message

        try:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, nbytes)
        except OSError:
            pass  # this user's limit on pipe memory is reached: keep the default size


def raise_descriptor_limit() -> int | None:
    """Raise the soft limit of open files of this process, and of what it starts from now on.

    Returns:
        The limit before; None if it was not changed.
    """
    soft, hard = descriptor_limits()
    return soft if soft != hard and set_descriptor_limit(hard) else None


def set_descriptor_limit(soft: int) -> bool:
    """Set the soft limit of open files of this process; return False if that is not possible."""
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, descriptor_limits()[1]))
    except (OSError, ValueError):
        return False  # macOS calls its limit infinite and takes less
    return True


def descriptor_limits() -> tuple[int, int]:
    """Return the soft and the hard limit of open files of this process."""
    import resource  # missing on systems that distrun refuses with a message

    return resource.getrlimit(resource.RLIMIT_NOFILE)
