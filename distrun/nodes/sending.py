"""Sends a project to several machines at once; `agent/receive.py` is the other end."""

from __future__ import annotations

import os
import select
import subprocess
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from distrun.identity import directory_id
from distrun.nodes import conversation
from distrun.nodes.project import Project, ProjectFile
from distrun.silence import LOST_AFTER_S
from distrun.wire import Message, encoded

_AT_ONCE = 16
_CHUNK_NBYTES = 1 << 18
_RSYNC_FROM_NBYTES = 1_000_000
"""Less is sent sooner through the connection that is open anyway."""
_END_LIMIT_S = 2.0


class SendingFailed(Exception):
    """Why a machine did not get the project, as a sentence."""

    of_the_way = False
    """Whether the sentence is of ssh, or of the shell there, and not of the receiver."""


class Unreached(SendingFailed):
    """The machine was not reached, or the receiver did not start there."""

    of_the_way = True


@dataclass(frozen=True)
class Target:
    """A machine, and what reaches it."""

    name: str
    command: tuple[str, ...]
    """Starts `distrun.agent.receive` there."""
    bootstrap: bool = False
    """It has to be sent distrun first."""
    shell: tuple[str, ...] = ()
    """What rsync reaches it with; empty: rsync cannot."""
    rsync_name: str = ""
    """What rsync calls it."""


@dataclass(frozen=True)
class Sent:
    """What became of the project on a machine."""

    target: Target
    count: int = 0
    nbytes: int = 0
    unchanged: int = 0
    here: bool = False
    """Its directory there is the one here."""
    problem: str = ""
    of_the_way: bool = False
    """Whether the problem is that the machine was not reached."""


def send_project(
    targets: Sequence[Target], project: Project, workdir: str, told: Callable[[Sent], None]
) -> None:
    """Send a project to all machines, some at a time.

    Args:
        targets: The machines.
        project: The project.
        workdir: A directory that must exist there too.
        told: Called with the result of each.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            running = [threads.submit(_sent, t, project, workdir, stop) for t in targets]
            for each in as_completed(running):
                told(each.result())
        except BaseException:  # also Ctrl-C: the threads have to end
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise


def _sent(target: Target, project: Project, workdir: str, stop: threading.Event) -> Sent:
    try:
        receiver = _Receiver(target, stop)
    except OSError as error:
        return Sent(target, problem=f"{target.command[0]} cannot be started: {error.strerror}")
    try:
        return receiver.take(project, workdir)
    except SendingFailed as why:
        return Sent(target, problem=str(why), of_the_way=why.of_the_way)
    finally:
        receiver.close()


class _Receiver:
    """The program on one machine that takes the project."""

    def __init__(self, target: Target, stop: threading.Event) -> None:
        self._target, self._stop = target, stop
        self._talk, self._child = conversation.start(target.command, bootstrap=target.bootstrap)
        self._answers: list[Message] = []
        self._words_end = False
        self._failure: SendingFailed | None = None

    def take(self, project: Project, workdir: str) -> Sent:
        """Send the project.

        Raises:
            SendingFailed: That was not possible.
        """
        files = [list(asdict(file).values()) for file in project.files]
        order = {"into": str(project.into), "workdir": workdir, "files": files}
        self.write(encoded({**order, "from": directory_id(project.root)}))
        answer = self._answer()
        if answer.get("here"):
            return Sent(self._target, here=True, unchanged=len(files))
        wanted = {at: project.files[at] for at in answer["wanted"]}
        nbytes = sum(file.nbytes for file in wanted.values())
        contents = {at: file for at, file in wanted.items() if file.link is None}
        may_rsync = answer["rsync"] and nbytes >= _RSYNC_FROM_NBYTES
        if may_rsync and self._rsync(project.root, str(answer["into"]), [*contents.values()]):
            self.write(encoded({"tar": False}))
        else:
            self.write(encoded({"tar": True}))
            self._send_archive(project.root, contents)
        self._answer()
        return Sent(self._target, len(wanted), nbytes, len(files) - len(wanted))

    def _send_archive(self, root: Path, files: dict[int, ProjectFile]) -> None:
        with tarfile.open(fileobj=self, mode="w|", bufsize=_CHUNK_NBYTES) as archive:  # type: ignore[call-overload]
            for at, file in files.items():
                member = tarfile.TarInfo(str(at))
                member.size = file.nbytes
                try:
                    with open(root / file.name, "rb") as content:
                        archive.addfile(member, content)
                except OSError as error:  # tarfile's own, too: the file has become shorter
                    why = error.strerror or "it was changed meanwhile"
                    raise SendingFailed(f"{file.name!r} cannot be sent: {why}") from None

    def _rsync(self, root: Path, into: str, files: Sequence[ProjectFile]) -> bool:
        """Let rsync send the files, if it is here; return whether it did."""
        if not self._target.shell:
            return False
        words = ["rsync", "-pt", "--protect-args", "--from0", "--files-from=-"]
        words += [f"--timeout={LOST_AFTER_S:.0f}", "-e", " ".join(self._target.shell)]
        words += ["--", f"{root}/", f"{self._target.rsync_name}:{into}/"]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        try:
            child = subprocess.Popen(
                words, stdin=pipe, stdout=nothing, stderr=nothing, start_new_session=True
            )
        except OSError:
            return False
        names: bytes | None = b"".join(os.fsencode(file.name) + b"\0" for file in files)
        while True:
            try:
                child.communicate(names, timeout=1.0)
                return child.returncode == 0
            except subprocess.TimeoutExpired:
                names = None  # communicate goes on where it was
            if self._stop.is_set():
                child.kill()
                child.wait()
                raise SendingFailed("interrupted")

    def write(self, data: bytes) -> int:
        """Write all of it.

        Raises:
            SendingFailed: The machine has told of a problem, has ended, or is silent.
        """
        if self._failure is not None:  # tarfile writes once more when it is closed
            raise self._failure
        try:
            self._talk.send_bytes(bytes(data))
            while self._talk.flush() and not self._answers:
                self._step(select.POLLOUT)
            if not self._answers:
                self._step(limit_s=0.0)
            if self._answers and "problem" in self._answers[0]:
                self._answer()
        except SendingFailed as failure:
            self._failure = failure
            raise
        return len(data)

    def _answer(self) -> Message:
        while not self._answers:
            self._step()
        answer = self._answers.pop(0)
        if "problem" in answer:
            raise SendingFailed(str(answer["problem"]))
        return answer

    def _step(self, commands: int = 0, limit_s: float = 1.0) -> None:
        """Wait for something to read or to write, and read it."""
        poller = select.poll()
        talk = self._talk
        poller.register(talk.messages_fd, select.POLLIN)
        if not self._words_end:
            poller.register(talk.words_fd, select.POLLIN)
        if commands:
            poller.register(talk.commands_fd, commands)
        ready = {fd for fd, _ in poller.poll(limit_s * 1000)}
        if talk.words_fd in ready:
            self._words_end = not talk.read_words()
        if talk.messages_fd in ready:
            found = talk.read()
            if found is None:
                raise Unreached(self._why_gone())
            self._answers += [message for message, _ in found]
        if talk.silence.lost:
            raise SendingFailed(f"no answer within {LOST_AFTER_S:g} s")
        if self._stop.is_set():
            raise SendingFailed("interrupted")

    def _why_gone(self) -> str:
        try:
            code: int | None = self._child.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None  # it has closed its output but still runs
        words = select.poll()
        words.register(self._talk.words_fd, select.POLLIN)
        while not self._words_end and words.poll(0):
            self._words_end = not self._talk.read_words()
        return (self._talk.last_lines or [f"it ended with exit code {code}"])[-1]

    def close(self) -> None:
        """End it, if it runs."""
        self._talk.close()
        conversation.end([self._child], _END_LIMIT_S)
