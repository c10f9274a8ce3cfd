"""One conversation: commands go to a program, messages come back, and words for people.

The program runs here, or behind ssh or srun. Then its standard input takes the commands, its
standard output gives the messages, and its standard error the words. It ends by itself when its
input ends.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Sequence

from distrun.silence import Silence
from distrun.wire import Frames, Message, encoded

LOG_INS_AT_ONCE = 32
"""How many log in at once: sshd, and a host that others are reached through, drop connections when
too many are not yet authenticated (MaxStartups, sshd_config(5))."""
_READ_NBYTES, _MUCH_NBYTES = 1 << 16, 1 << 20
"""A read of at most 1 MiB takes 14 us even if there is one byte; of at most 64 KiB, 1 us."""
_WORDS_NBYTES = 2048


class Conversation:
    """The ends of the pipes that are here.

    Args:
        pid: The process here: the program, or the client that reaches it.
        commands_fd: Where commands are written; it becomes non-blocking.
        messages_fd: Where messages are read.
        words_fd: Where words are read.
        greeted: The program is started by a login shell, and greets.
    """

    def __init__(
        self, pid: int, commands_fd: int, messages_fd: int, words_fd: int, *, greeted: bool = False
    ) -> None:
        self.pid = pid
        self.commands_fd, self.messages_fd, self.words_fd = commands_fd, messages_fd, words_fd
        self.silence = Silence()
        self.words = b""
        """The end of its words."""
        self._frames = Frames(greeted=greeted)
        self._outgoing = b""
        self._closed = False
        self._read_nbytes = _READ_NBYTES
        os.set_blocking(commands_fd, False)

    def send(self, message: Message) -> None:
        """Send a message; what does not fit into the pipe is kept for `flush`."""
        self.send_bytes(encoded(message))

    def send_bytes(self, data: bytes) -> None:
        """The same for whole lines, or for what else the program expects."""
        self._outgoing += data
        self.flush()

    def flush(self) -> bool:
        """Write what fits into the pipe; return True if some is left."""
        try:
            while self._outgoing and not self._closed:
                self._outgoing = self._outgoing[os.write(self.commands_fd, self._outgoing) :]
        except BlockingIOError:
            return True
        except OSError:
            self._outgoing = b""  # it is gone: the end of its messages shows that
        return False

    def read(self) -> list[tuple[Message, memoryview]] | None:
        """Return its messages, each with its raw bytes; None at the end. Call when readable."""
        data = os.read(self.messages_fd, self._read_nbytes)
        if not data:
            return None
        self._read_nbytes = _MUCH_NBYTES if len(data) >= _READ_NBYTES else _READ_NBYTES
        self.silence.heard()
        return self._frames.feed(data)

    def read_words(self) -> bytes:
        """Return new words; b"" at their end. Call when readable."""
        data = os.read(self.words_fd, _READ_NBYTES)
        self.words = (self.words + data)[-_WORDS_NBYTES:]
        return data

    @property
    def fds(self) -> tuple[int, int, int]:
        """Its descriptors: of commands, messages and words."""
        return self.commands_fd, self.messages_fd, self.words_fd

    @property
    def last_lines(self) -> list[str]:
        """The last lines of its words; without words, of what else it has printed."""
        text = self.words.strip() or self._frames.noise
        lines = text.decode(errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def close(self) -> None:
        """Close the pipes; a program behind ssh or srun then ends."""
        if not self._closed:
            self._closed = True
            for fd in self.fds:
                os.close(fd)


def start(
    command: Sequence[str], *, bootstrap: bool = False, soft_limit: int | None = None
) -> tuple[Conversation, subprocess.Popen[bytes]]:
    """Start a program that greets, here or behind ssh or srun.

    Args:
        command: The command.
        bootstrap: Send distrun first, for a command that expects it.
        soft_limit: Of open files, for the command; None: that of this process.

    Returns:
        The conversation, and the process here, which the caller has to wait for.

    Raises:
        OSError: The command cannot be started.
    """
    child = subprocess.Popen(
        command if soft_limit is None else _with_limit(command, soft_limit),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is handled here: closing its input ends both ends
    )
    assert child.stdin and child.stdout and child.stderr
    fds = [os.dup(stream.fileno()) for stream in (child.stdin, child.stdout, child.stderr)]
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()
    talk = Conversation(child.pid, *fds, greeted=True)
    if bootstrap:
        from distrun.nodes.package import package  # zipfile is large for the supervisor

        talk.send_bytes(package())
    return talk, child


def _with_limit(command: Sequence[str], soft_limit: int) -> Sequence[str]:
    """Return a command that runs with another limit: srun passes its own on to what it starts."""
    if not any(os.access(os.path.join(at, command[0]), os.X_OK) for at in os.get_exec_path()):  # noqa: PTH118 - an absolute path stays one
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    return ("sh", "-c", f'ulimit -Sn {soft_limit}; exec "$@"', "sh", *command)


def end(children: Sequence[subprocess.Popen[bytes]], limit_s: float) -> None:
    """Wait for processes whose conversations are closed; kill those that stay."""
    deadline = time.monotonic() + limit_s
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
