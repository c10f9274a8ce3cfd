"""One run at a time writes into a directory of checkpoints."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from distrun.dcp.metadata import CheckpointError

NAME = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
"""Errors of file systems without locks (NFS without lockd, Lustre without -o flock)."""


class DirectoryLock:
    """Held from construction until `release`, or until the process ends in any way.

    A POSIX record lock: it belongs to the process, so a forked child does not keep it,
    and shared file systems pass it to other nodes.

    Args:
        directory: The directory of the checkpoints; it exists.
        run: The name of this run, "" if it has none.
        restarted: This is a later attempt of the run; it waits for an earlier one to end.
        say: Prints a line for the user.

    Raises:
        CheckpointError: Another run writes there.
        OSError: The file cannot be opened.
    """

    def __init__(
        self, directory: Path, run: str, *, restarted: bool, say: Callable[[str], None]
    ) -> None:
        self._file = directory / NAME
        self._fd = -1
        while self._fd < 0:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _holder(fd)
                os.close(fd)
                if error.errno in _NO_LOCKS:
                    say(f"{directory} has no file locks: no second run may save there")
                    return
                if restarted and run and holder.get("run") == run:
                    return  # the lost node of the previous attempt may still hold it
                raise CheckpointError(_refusal(directory, holder)) from None
            if _is_at(fd, self._file):
                self._fd = fd
            else:
                os.close(fd)  # its holder has removed it meanwhile
        about = {"run": run, "pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(about).encode(), 0)

    def release(self) -> None:
        """Release the lock: other runs may write there."""
        if self._fd >= 0:
            self._file.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def take(
    directory: Path, group: dist.ProcessGroup, run: str, say: Callable[[str], None]
) -> DirectoryLock | None:
    """Make and lock a directory for this run; rank 0 alone holds the lock.

    Raises:
        CheckpointError: Another run writes there, or it is not writable; on all ranks.
    """
    lock, told = None, [""]
    if group.rank() == 0:
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = DirectoryLock(directory, run, restarted=restarted, say=say)
        except OSError as error:
            told = [f"no checkpoint can be written: {error} (--no-save writes none)"]
        except CheckpointError as error:
            told = [str(error)]
    dist.broadcast_object_list(told, group_src=0, group=group)
    if told[0]:
        raise CheckpointError(told[0])
    return lock


def _holder(fd: int) -> dict[str, Any]:
    """Return the holder of the lock, {} if it has not written its name yet."""
    try:
        about = json.loads(os.pread(fd, 1 << 16, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _refusal(directory: Path, holder: dict[str, Any]) -> str:
    process = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    who = f"run {holder['run']} ({process})" if holder.get("run") else process
    return (
        f"{directory} is in use: {who} saves its checkpoints there, and each would delete the"
        " other's (--checkpoint-dir names another, --no-save writes none)"
    )


def _is_at(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), file.stat())
    except OSError:
        return False
