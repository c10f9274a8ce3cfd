"""What a signal would do to another process, from what Linux tells of it in /proc (proc(5)).

Elsewhere nothing is known, and every signal counts as one that ends the process.
"""

from __future__ import annotations

from pathlib import Path


def catches(pid: int, signum: int) -> bool:
    """Say whether a process has a handler for a signal."""
    return _in_mask(Path(f"/proc/{pid}"), "SigCgt", signum)


def survives(pid: int, signum: int) -> bool:
    """Say whether a process has made sure that a signal does not end it.

    It has a handler, ignores the signal, or blocks it in all of its threads: then one of them
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
    """Say whether a thread is in sigwait for a signal; meanwhile the kernel does not block it."""
    try:
        if not (thread / "wchan").read_text().startswith("do_sigtimedwait"):
            return False
        wanted = int((thread / "syscall").read_text().split()[1], 16)  # const sigset_t *
        with open(thread / "mem", "rb", buffering=0) as memory:
            memory.seek(wanted)
            mask = int.from_bytes(memory.read(8), "little")
    except (OSError, ValueError, IndexError, OverflowError):
        return False  # it has just woken up, or this user may not look
    return bool(mask >> (signum - 1) & 1)


def _in_mask(task: Path, name: str, signum: int) -> bool:
    try:
        text = (task / "status").read_text()
    except OSError:
        return False
    words = text.partition(f"{name}:")[2].split(maxsplit=1)
    return bool(words) and bool(int(words[0], 16) >> (signum - 1) & 1)
