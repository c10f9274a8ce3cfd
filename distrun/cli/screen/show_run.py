"""Shows a run and how it ended, for `launch` and `logs -f`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from distrun.api.runs import Part, RunDirectory
from distrun.cli.screen.console import Console
from distrun.cli.screen.fold import Fold, Folded
from distrun.cli.screen.held_traceback import HeldTraceback, prefixed
from distrun.cli.screen.recorded_elsewhere import evidence
from distrun.cli.screen.status import Status
from distrun.cli.screen.tail import LogTail
from distrun.cli.screen.verdict import ending_lines, shown
from distrun.env import RECORDED_ELSEWHERE
from distrun.frames import span
from distrun.signals import SAVE
from distrun.silence import TOLD_AFTER_S
from distrun.streams import STDOUT

_STATUS_S = 0.1


class RunView:
    """Prints one run's output and events.

    Args:
        run: Where the logs are.
        console: Where to print.
        only_ranks: Show these ranks only; None for all.
        prefix: Put the rank before each line.
        fold: Show equal lines of many ranks once.
        quiet: Show only how the run ended, if it failed.
        as_json: Print every event, output included, as one JSON object a line.
        since: Output from before this time is not shown: it is of an earlier attempt.
    """

    def __init__(
        self,
        run: RunDirectory,
        console: Console,
        *,
        only_ranks: Collection[int] | None = None,
        prefix: bool = True,
        fold: bool = False,
        quiet: bool = False,
        as_json: bool = False,
        since: float = 0.0,
    ) -> None:
        self._since = since
        self._run = run
        self._console = console
        self._only = only_ranks
        self._prefixed = prefix
        self._prefixes: dict[tuple[int, int, str], bytes] = {}
        self._fold = Fold() if fold else None
        self._quiet = quiet
        self._as_json = as_json
        self._seq = 0
        """Number of the last line of JSON: whoever reads them from a log that was cut needs it."""
        self._tails: dict[tuple[int, int], LogTail] = {}
        self._held: dict[tuple[int, int], HeldTraceback] = {}
        self._failure_told = False
        self._stopping = False
        self._status = Status()
        self._status_at = 0.0

    def leave_if_nobody_reads(self) -> None:
        """See `Console`."""
        self._console.leave_if_nobody_reads()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Handle one event of the run; an empty one means that logs may have grown."""
        try:
            self._take(event)
        except Exception as error:  # an error of the view must never end the run
            if not self._console.broken:
                self._console.broken = True
                self._console.say(f"the output stops here, the run goes on: {error!r}")

    def _take(self, event: Mapping[str, Any]) -> None:
        if event:
            if event["event"] == "rank_started":
                self.add_rank(event["node"], event["rank"])
            elif event["event"] in ("rank_raised", "rank_ended"):
                self._rank_ended(event)
            elif event["event"] in ("stopping", "attempt_started"):
                self._stopping = event["event"] == "stopping"
            self._status.on_event(event)
            if event["event"] == "ended":
                pass  # the last line is that of `finish`
            elif self._as_json:
                self._line(event)
            elif event["event"] == "said":  # by the container, beside the events of its launch
                if not self._quiet:
                    self._console.lines(str(event["line"]).encode(errors="replace") + b"\n")
            else:
                self._say(event)
        self.pump()

    def add_rank(self, node: int, rank: int) -> None:
        """Follow one more rank's log."""
        wanted = self._only is None or rank in self._only
        if wanted and not self._quiet and (node, rank) not in self._tails:
            log, streams = self._run.log(node, rank), self._run.streams(node, rank)
            self._tails[node, rank] = LogTail(log, streams, self._since)

    def pump(self) -> None:
        """Print what is new in the logs."""
        if not self._console.broken:
            for (node, rank), tail in self._tails.items():
                for part in tail.read():
                    self._print(node, rank, part)
                self._status.on_bar(node, rank, tail.bar)
                dying = self._failure_told or self._stopping
                self._traceback(node, rank).release_if_due(self, dying=dying)
        now = time.monotonic()
        if self._fold:
            self._show(self._fold.due(now))
        if self._console.live and not self._quiet and now - self._status_at >= _STATUS_S:
            self._status_at = now
            self._console.status(self._status.line(shutil.get_terminal_size().columns - 1))

    def print_logs(self) -> None:
        """Print the content of the logs, rank by rank."""
        for (node, rank), tail in self._tails.items():
            for read in (tail.read, tail.close):
                for part in read():
                    if self._as_json:
                        self._print(node, rank, part)
                    else:
                        self._lines(node, rank, part.stream, part.data)

    def finish(self, ended: Mapping[str, Any]) -> None:
        """Print the rest of the output, and how the run ended."""
        self.pump()
        for (node, rank), tail in self._tails.items():
            for part in tail.close():
                self._print(node, rank, part)
            self._traceback(node, rank).release(self)
        self._show_folded()
        self._console.status("")
        self._console.live = False
        if self._as_json:
            if os.environ.get(RECORDED_ELSEWHERE) == "1":
                for event in evidence(self._run):
                    self._line(event)
            self._line({"event": "ended", **ended})
        else:
            first, *more = [*ending_lines(ended, self._run, quiet=self._quiet), ""]
            if first:
                self._console.say(first)
            for line in more[:-1]:
                self._console.say(line, bare=True)

    def _rank_ended(self, event: Mapping[str, Any]) -> None:
        """Do not show the traceback that ended a rank: the verdict has the first one."""
        if event.get("exit_code") != 0:
            self.pump()
            held = self._traceback(event["node"], event["rank"])
            if event["report"] is None:
                if self._failure_told and event["victim"] and event["exit_code"] < 0:
                    held.discard()  # it was stopped before it could report that it lost a peer
                else:  # it caught the exception itself: no verdict has it
                    held.release(self)
            else:
                held.drop(event["report"]["traceback"], self)

    def _traceback(self, node: int, rank: int) -> HeldTraceback:
        return self._held.setdefault((node, rank), HeldTraceback())

    def _print(self, node: int, rank: int, part: Part) -> None:
        if self._as_json:
            said = {"time": part.time, "node": node, "rank": rank, "stream": part.stream}
            for line in part.data[:-1].split(b"\n"):
                self._line({"event": "output", **said, "line": line.decode()})
            return
        free = part.data
        if part.stream != STDOUT:
            prefix = self._prefix(node, rank, part.stream)
            free = self._traceback(node, rank).hold(free, prefix, part.stream)
        if free:
            self._status.on_output(node, rank, free)
        if free and self._fold:
            self._fold.take((node, rank), part.stream, free, time.monotonic())
        elif free:
            self._lines(node, rank, part.stream, free)

    def _line(self, event: Mapping[str, Any]) -> None:
        """Print an event as JSON, with the number of the line."""
        self._seq += 1
        line = json.dumps({**event, "seq": self._seq}, default=str)
        self._console.lines(line.encode() + b"\n")

    def _lines(self, node: int, rank: int, stream: str, block: bytes) -> None:
        self._console.lines(prefixed(block, self._prefix(node, rank, stream)), stream)

    def _prefix(self, node: int, rank: int, stream: str) -> bytes:
        if not self._prefixed:
            return b""
        key = (node, rank, stream)
        if key not in self._prefixes:
            self._prefixes[key] = self._console.prefix(f"{node}·{rank}", rank, stream)
        return self._prefixes[key]

    def lines(self, block: bytes, stream: str) -> None:
        """Print lines that were held back, after those of their rank that wait here."""
        self._show_folded()
        self._console.lines(block, stream)

    def _show_folded(self) -> None:
        if self._fold:
            self._show(self._fold.rest())

    def _show(self, entries: Iterable[Folded]) -> None:
        for entry in entries:
            if len(entry.ranks) == 1:
                self._lines(*entry.ranks[0], entry.stream, entry.line)
                continue
            ranks = [rank for _, rank in entry.ranks]
            prefix = b""
            if self._prefixed:
                prefix = self._console.prefix(f"ranks {span(ranks)}", min(ranks), entry.stream)
            self._console.lines(prefix + entry.line, entry.stream)

    def _say(self, event: Mapping[str, Any]) -> None:
        words = _WORDS.get(event["event"])
        message = words(event) if words else ""
        if message and event["event"] == "rank_ended":
            if self._failure_told:  # one line for the first failure, none for those after it
                return
            self._failure_told = True
        elif event["event"] == "attempt_started":
            self._failure_told = False
        if message and not (self._quiet and event["event"] in _CHATTER):
            self._console.say(message)


_CHATTER = ("waiting", "world_started")


def _waiting(event: Mapping[str, Any]) -> str:
    missing = event["missing"]
    if not event["joined"] and len(missing) == 1 and missing[0].endswith(")"):
        node, _, stage = missing[0][:-1].partition(" (")  # the only one of the run
        return f"{node}: {stage} for {event['waited_s']} s"
    joined = ", ".join(event["joined"]) or "none"
    return (
        f"waiting {event['waited_s']} s for nodes · joined: {joined}"
        f" · missing: {', '.join(event['missing'])}"
    )


def _restart(event: Mapping[str, Any]) -> str:
    if event["of"] is None:
        return f"restarting: {event['reason']}"
    restart = f"restart {event['attempt']} of {event['of']}"
    return f"restarting all ranks, {restart}: {event['reason']}"


def _failed(event: Mapping[str, Any]) -> str:
    report = event["report"] or {}
    if event["exit_code"] == 0 or event["victim"]:
        return ""
    if "type" in report:
        what = f"{report['type']} at {shown(Path(report['file']))}:{report['line']}"
    else:
        code = event["exit_code"]
        what = f"exit code {code}" if code > 0 else f"signal {-code}"
    host = event.get("host") or f"node{event['node']}"
    return f"rank {event['rank']} on {host} ended: {what}"


def _forwarded(event: Mapping[str, Any]) -> str:
    if not event["deaf"]:
        return ""
    if event["signal"] == SAVE:
        return ""  # `distrun save` tells who asked
    name = signal.Signals(event["signal"]).name
    deaf = event["deaf"]
    who, ends = ("ranks", "they") if len(deaf) > 1 else ("rank", "it")
    return f"signal {name} was not passed to {who} {span(deaf)}: without a handler {ends} would end"


def _stays(event: Mapping[str, Any]) -> str:
    threads = ", ".join(event["threads"])
    why = f"thread {threads} keeps it alive" if threads else "its exit takes long"
    return (
        f"rank {event['rank']} has raised {event['type']} at"
        f" {shown(Path(event['file']))}:{event['line']} and has not ended: {why}"
    )


def _stragglers(event: Mapping[str, Any]) -> str:
    ended = ", ".join(map(str, event["ended"]))
    return (
        f"rank{'s' * (len(event['ended']) > 1)} {ended} ended {event['for_s']:g} s ago;"
        f" {event['where']}"
    )


def _once_more(event: Mapping[str, Any]) -> str:
    """Return what a second signal does, if it was one that the user has sent."""
    return "; once more kills them" if str(event["reason"]).startswith("SIG") else ""


def _hang(event: Mapping[str, Any]) -> str:
    if event["stops"]:
        return ""  # the ending says it
    return f"{event['verdict']['sentence']}\n--on-hang observe: the run goes on"


def _suspect_checked(event: Mapping[str, Any]) -> str:
    told = event["failed"][:_FINDINGS_SHOWN] or ["nothing is wrong with it"]
    more = len(event["failed"]) - len(told)
    left = f"; and {more} more, in nodes.json" if more > 0 else ""
    return f"{event['host']} was checked: {'; '.join(told)}{left}"


_FINDINGS_SHOWN = 2
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "waiting": _waiting,
    "notice": lambda e: str(e["message"]),
    "job": lambda e: str(e["message"]),
    "restart": _restart,
    "starting_without": lambda e: (
        f"starting with {e['nnodes']} node{'s' * (e['nnodes'] != 1)},"
        f" without {', '.join(e['missing'])}"
    ),
    "node_back": lambda e: (
        f"{e['host']} is back: it gets ranks at the next"
        f" {'checkpoint' if e['regrow'] else 'restart'}"
    ),
    "suspect_checked": _suspect_checked,
    "spare_lost": lambda e: f"lost the spare {e['why'] or e['host']}",
    "node_lost": lambda e: f"lost {e['why'] or e['host']}; stopping the others",
    "rank_stays": _stays,
    "stragglers": _stragglers,
    "hang": _hang,
    "no_progress": lambda e: f"no progress for {e['for_s']} s: {e['sentence']}",
    "lingering": lambda e: (
        f"all ranks have ended; {e['processes']} of node{e['node']} may go on"
        f" for {e['left_s']} s (--linger)"
    ),
    "killed": lambda e: f"killed what the ranks of node{e['node']} had started: {e['processes']}",
    "silent": lambda _: (
        f"the supervisor of this run has been silent for {TOLD_AFTER_S:g} s: is it stopped?"
    ),
    "stopping": lambda e: (
        f"stopping the ranks ({e['reason']}), within {e['grace_s']:g} s{_once_more(e)}"
        if e["grace_s"]
        else f"stopping the ranks ({e['reason']})"
    ),
    "rank_ended": _failed,
    "signal_forwarded": _forwarded,
}
