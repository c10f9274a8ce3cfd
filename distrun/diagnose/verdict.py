"""Finds the rank that failed first and its error, and the ranks that failed as a consequence."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distrun.diagnose.cures import cure_of
from distrun.diagnose.import_failure import fell_in_import
from distrun.frames import is_library, shortened, span

# Errors of a rank that has lost a peer (gloo, TCPStore, NCCL in torch 2.11 to 2.13).
_VICTIM = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Application timeout caused pair closure"
    r"|Connection was likely closed|connection closed by remote|failed to (recv|send)"
    r"|sendBytes failed|recvValue(WithTimeout)? failed|ncclRemoteError"
    r"|NCCL communicator was aborted|remote process exited|waiting for connect"
    r"|Gloo connectFullMesh failed",
    re.IGNORECASE,
)
_TIMEOUT = re.compile(r"\btimed out\b|\btimeout\b", re.IGNORECASE)
# Only torch's errors: a download of the user's script may be reset by its peer too.
_VICTIM_TYPES = frozenset(
    ("RuntimeError", "DistError", "DistBackendError", "DistNetworkError", "DistStoreError")
)
_STACK_LINE = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$')
_CRASH = "Fatal Python error: "
_SIMULTANEOUS_MS = 1.0
_LEAVING_S = 1.0
_LAST_LINES = 4
_MESSAGE_CHARS, _SOURCE_CHARS = 240, 120
"""Three lines of a terminal; errors/rankN.json has the whole message."""


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended."""

    rank: int
    node: int
    host: str
    exit_code: int
    """Its exit code, or -n for signal n."""
    at: float
    """Seconds on a clock shared by all ranks."""
    after_stop: bool = False
    """Whether it ended only after the launcher had stopped it."""
    report: dict[str, Any] | None = None
    """Its own report: type, message, traceback, file, line, source."""
    stacks: str = ""
    """Python stacks written by faulthandler when it crashed."""
    stacks_printed: bool = False
    """Whether they are in its log, because the script or its environment enabled faulthandler."""
    last_words: str = ""
    """The end of its output."""
    could_read: bool = False
    """Whether it had the launcher's stdin."""
    code_known: bool = True
    """False: it was on its way out, and was killed before its code could be seen."""
    out_of_memory: str = ""
    """What the kernel says of it if it killed the rank, out of memory."""

    @property
    def failed(self) -> bool:
        """Whether it ended with an exit code other than 0."""
        return self.exit_code != 0

    @property
    def timed_out(self) -> bool:
        """Whether its exception's message mentions a timeout."""
        return bool(self.report and _TIMEOUT.search(str(self.report["message"])))

    @property
    def is_victim(self) -> bool:
        """Whether it was stopped by the launcher, or its error only reports a lost peer."""
        return self.after_stop or self.lost_a_peer

    @property
    def lost_a_peer(self) -> bool:
        """Whether its error only reports a lost peer."""
        return bool(
            self.report
            and self.report["type"] in _VICTIM_TYPES
            and _VICTIM.search(str(self.report["message"]))
        )

    @property
    def signature(self) -> tuple[Any, ...] | None:
        """Exception type and line, equal for ranks with the same error; None without one."""
        if self.report is None or self.lost_a_peer:
            return None
        return self.report["type"], self.report["file"], self.report["line"]


@dataclass(frozen=True)
class Verdict:
    """The first failure, for people and for programs."""

    rank: int
    node: int
    host: str
    exit_code: int
    """Exit code for the command: the rank's own, or 128+n for signal n."""
    cause: str
    """One line: `ValueError: …`, `killed by SIGSEGV`, `exited with 3`."""
    file: str = ""
    line: int = 0
    source: str = ""
    carrier: str = ""
    """The place of the error, or the process that raised it for the rank."""
    traceback: str = ""
    last_words: str = ""
    """The last lines that it printed, if there was no exception."""
    last_words_of: int = -1
    """The rank that printed them: of ranks that ended in the same way, often only one prints."""
    stacks: str = ""
    """Where the stacks of a crash are: `log`, `file`, or "" for none."""
    others: int = 0
    """How many other ranks failed."""
    same: int = 0
    """How many of them had the same error at the same line."""
    within_ms: float = 0.0
    """Time from the first failure to the last."""
    early: tuple[int, ...] = ()
    """Ranks that had ended with 0, if it only lost a peer: one of them may be that peer."""
    note: str = ""
    cure: str = ""
    """The cure of this error, if one is known."""
    in_import: bool = False
    """It failed in an import or by a version conflict: the order of imports may matter."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def judge(ends: Sequence[RankEnd]) -> Verdict | None:
    """Return the verdict, or None if no rank failed.

    The first failure is the earliest of those that do not only report a lost peer; if all do, the
    earliest of all.
    """
    failed = sorted((end for end in ends if end.failed), key=lambda end: end.at)
    if not failed:
        return None
    first = next((end for end in failed if not end.is_victim), failed[0])
    others = [end for end in failed if end is not first and not _was_stopped(end)]
    place = _place(first)
    speaker = _speaker(first, others)
    return Verdict(
        rank=first.rank,
        node=first.node,
        host=first.host,
        exit_code=first.exit_code if first.exit_code > 0 else 128 - first.exit_code,
        cause=cause(first),
        **place,
        carrier=_carrier(first),
        traceback=str((first.report or {}).get("traceback", "")),
        last_words="" if first.report else _last_lines(speaker.last_words),
        last_words_of=speaker.rank,
        stacks=_stacks(first),
        others=len(others),
        same=sum(end.signature is not None and end.signature == first.signature for end in others),
        within_ms=round(1000 * max(0.0, 0.0, *(end.at - first.at for end in others)), 1),
        early=tuple(sorted(end.rank for end in _early(first, ends))),
        note=_note(first, ends, failed),
        cure=_cure(first, speaker.last_words),
        in_import=fell_in_import(first.exit_code, first.report, first.stacks),
    )


def _was_stopped(end: RankEnd) -> bool:
    """Return whether the launcher ended it, and it has reported no error of its own."""
    return end.after_stop and end.report is None


def _cure(first: RankEnd, last_words: str) -> str:
    rank = None if first.could_read else first.rank
    return cure_of(first.exit_code, first.report, last_words, rank)


def _speaker(first: RankEnd, others: Sequence[RankEnd]) -> RankEnd:
    """Return the rank whose output shows why the first one ended."""
    alike = (e for e in others if e.exit_code == first.exit_code and not e.after_stop)
    return next((end for end in (first, *alike) if _last_lines(end.last_words)), first)


def cause(end: RankEnd) -> str:
    """Return why one rank ended, in one line."""
    if end.report:
        message = str(end.report["message"]).strip().split("\n")[0]
        name = str(end.report["type"])
        return f"{name}: {shortened(message, _MESSAGE_CHARS)}" if message else name
    if end.out_of_memory:
        return f"killed by the kernel, out of memory: {end.out_of_memory}"
    if end.exit_code < 0:
        return f"killed by {signal_name(-end.exit_code)}"
    return f"exited with {end.exit_code}"


def _last_lines(text: str) -> str:
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(shortened(line, _MESSAGE_CHARS) for line in lines[-_LAST_LINES:])


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _carrier(end: RankEnd) -> str:
    """Return `in DataLoader worker 0 of rank 1`, or "" if the rank raised the error itself."""
    carriers = [str(words) for words in (end.report or {}).get("carriers", [])]
    named = (f"{c} of rank {end.rank}" if c.startswith("in ") else c for c in reversed(carriers))
    return shortened(", ".join(named), _MESSAGE_CHARS)


def _stacks(end: RankEnd) -> str:
    if _CRASH not in end.stacks:
        return ""
    return "log" if end.stacks_printed else "file"


def _place(end: RankEnd) -> dict[str, Any]:
    if end.report and end.report.get("file"):
        source = shortened(str(end.report["source"]), _SOURCE_CHARS)
        return {"file": end.report["file"], "line": end.report["line"], "source": source}
    for text in end.stacks.splitlines():
        match = _STACK_LINE.match(text)
        if match and not is_library(match["file"]):
            return {"file": match["file"], "line": int(match["line"]), "source": ""}
    return {}


def _note(first: RankEnd, ends: Sequence[RankEnd], failed: Sequence[RankEnd]) -> str:
    if first.exit_code == -signal.SIGKILL and not first.out_of_memory:
        return "SIGKILL comes from outside the rank: often from the kernel, out of memory"
    if early := _early(first, ends):
        return f"{_named(early)} had ended with 0 while others still waited"
    if first.is_victim and not first.after_stop:
        return "it only reports that a peer was lost; no rank reported another error"
    close = [
        end
        for end in failed
        if end is not first
        and abs(end.at - first.at) * 1000 < _SIMULTANEOUS_MS
        and not end.is_victim
    ]
    if close:
        return f"{_named(close)} failed within {_SIMULTANEOUS_MS:g} ms: the order is uncertain"
    return ""


def _early(first: RankEnd, ends: Sequence[RankEnd]) -> list[RankEnd]:
    """Return the ranks that had ended with 0 before another one lost a peer.

    A peer may notice the closed connection before the exit of the other rank is noticed.
    """
    if not first.is_victim:
        return []
    before = first.at + _LEAVING_S
    return [e for e in ends if not e.failed and e.code_known and not e.after_stop and e.at < before]


def _named(ends: Sequence[RankEnd]) -> str:
    ranks = sorted(end.rank for end in ends)
    return f"rank{'s' * (len(ranks) > 1)} {span(ranks)}"


def is_code_bug(attempts: Sequence[Sequence[RankEnd]], world_size: int) -> bool:
    """Return whether the last two attempts ended with the same error on every rank."""
    if len(attempts) < 2:
        return False
    signatures = [{end.signature for end in ends} for ends in attempts[-2:]]
    complete = all(
        sum(end.signature is not None for end in ends) == world_size for ends in attempts[-2:]
    )
    return complete and signatures[0] == signatures[1] and len(signatures[0]) == 1
