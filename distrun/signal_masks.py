"""What a signal would do to another process, read from /proc (proc(5)) on Linux.

On other systems every signal counts as one that ends the process.
"""

from __future__ import annotations

from pathlib import Path


def catches(pid: int, signum: int) -> bool:
    """Return whether a process has a handler for a signal."""
    return _in_mask(Path(f"/proc/{pid}"), "SigCgt", signum)


def survives(pid: int, signum: int) -> bool:
    """Return whether a process is protected from a signal.

    It has a handler, ignores the signal, or blocks it in all of its threads, one of which then
    waits for it (sigwait, sigtimedwait, signalfd).
    """
    process = Path(f"/proc/{pid}")
    if _in_mask(process, "SigCgt", signum) or _in_mask(process, "SigIgn", signum):
        return True
    try:
        threads = list((process / "task").iterdir())
    except OSError:
        return False
    return all(_in_mask(t, "SigBlk", signum) or _waits_for(t, signum) for t in threads)


def _waits_for(thread: Path, signum: int) -> bool:
    """Return whether a thread is in sigwait for a signal; the kernel unblocks it meanwhile."""
    try:
        if not (thread / "wchan").read_text().startswith("do_sigtimedwait"):
            return False
        wanted = int((thread / "syscall").read_text().split()[1], 16)  # const sigset_t *
        with open(thread / "mem", "rb", buffering=0) as memory:
            memory.seek(wanted)
            mask = int.from_bytes(memory.read(8), "little")
    except (OSError, ValueError, IndexError, OverflowError):
        return False  # it has just returned, or this user may not read it
    return bool(mask >> (signum - 1) & 1)


def _in_mask(task: Path, name: str, signum: int) -> bool:
    try:
        text = (task / "status").read_text()
    except OSError:
        return False
    words = text.partition(f"{name}:")[2].split(maxsplit=1)
    return bool(words) and bool(int(words[0], 16) >> (signum - 1) & 1)
