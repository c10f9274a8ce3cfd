"""Follows the job of a run on Kubernetes, and fills its record from the log of the head's pod."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Mapping
from typing import Any

from distrun.api.mirror import Mirror, open_mirror
from distrun.errors import DistrunError, ExitCode, MachineError
from distrun.runs import record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers import pod_states
from distrun.schedulers.kube_access import Access
from distrun.schedulers.kube_refusals import GONE, Refusal, Silent
from distrun.schedulers.kube_server import APIS, Object, Server
from distrun.schedulers.kube_streams import (
    Lines,
    LogEnd,
    LogReader,
    Objects,
    ObjectWatch,
    Problem,
    news_queue,
)

_AGAIN_S, _LATE_AGAIN_S = 0.5, 8.0
"""When a log that was cut is read on; the pause grows."""
_LOCK_S = 1.0
_LAST_WORDS_S = 15.0
"""After the end of the job, the last words of its head come within this time."""
_WARNINGS_S = 5.0
_SAME_STATE_S = 10.0
"""Another message about the same reason is told after so long."""


class Watch:
    """Follows the job of one run: `over` does what is due, and never waits long.

    Args:
        run: The run.
        follow: Wait for what is to come; else read what is there.

    Raises:
        UsageError: The kubeconfig cannot be used.
        MachineError: The client is not installed.
    """

    def __init__(self, run: RunDirectory, *, follow: bool = True) -> None:
        self._run = run
        self._follow = follow
        found = record.read(run)
        self._name, self._kind = str(found.job.get("name")), str(found.job.get("kind"))
        self._server = Server(Access.from_json(found.job))
        self._news: list[dict[str, Any]] = []
        self._queue = news_queue()
        self._mirror: Mirror | None = None
        self._lock_at = 0.0
        self._watches: list[ObjectWatch] = []
        self._job: Object | None = None
        self._job_known = self._job_was_there = False
        self._pods: Mapping[str, Object] | None = None
        self._head: Object | None = None
        self._read: Object | None = None
        """The pod whose log is read."""
        self._log: LogReader | None = None
        self._log_at, self._log_pause_s = 0.0, _AGAIN_S
        self._log_is_last = self._complete = False
        self._decided_at: float | None = None
        self._told: dict[str, tuple[str, float]] = {}
        self._told_pods: set[str] = set()
        self._stuck_since: float | None = None
        self._warning, self._warning_at = "", 0.0

    def over(self) -> bool:
        """Do what is due; return whether the run has ended and will not go on.

        Raises:
            MachineError: The run directory cannot be used.
        """
        if self._mirror is None and not self._may_write():
            found = record.read(self._run)
            return found.ended_at is not None and found.exit_code == ExitCode.OK
        assert self._mirror is not None
        self._drain()
        if self._pods is None or not self._job_known:
            return False
        self._read_log()
        over = self._is_over(self._mirror)
        self._mirror.checkpoint()
        return over

    @property
    def has_caught_up(self) -> bool:
        """Whether all that is there now was read, or another process reads it."""
        if self._mirror is None:
            return True
        known = self._pods is not None and self._job_known
        return known and (self._complete or self._read is None)

    @property
    def reads(self) -> bool:
        """Whether the log is read, by this process or another one, or there is none yet."""
        if self._mirror is None:
            return True
        known = self._pods is not None and self._job_known
        no_log = self._head is None or not pod_states.has_log(self._head)
        return known and (no_log or self._log is not None or self._complete)

    @property
    def state(self) -> str:
        """What the job is doing, in a word or two; "" if that is not known yet."""
        if self._job is None or self._pods is None:
            return ""
        return pod_states.news_of(self._name, self._job, self._current())[0]

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield what is new: events with a message, and words that are no events."""
        news, self._news = self._news, []
        yield from news

    def close(self) -> None:
        """End its threads and connections, and let another process write the record."""
        for reader in (*self._watches, self._log):
            if reader is not None:
                reader.stop()
        for reader in (*self._watches, self._log):
            if reader is not None:
                reader.join(1.0)
        if self._mirror is not None:
            self._mirror.checkpoint()
            self._mirror.close()
            self._mirror = None
        self._server.close()

    # --- the threads --------------------------------------------------------------------

    def _may_write(self) -> bool:
        """Become the one that writes the record, if nobody else is; start to follow."""
        if time.monotonic() < self._lock_at:
            return False
        self._lock_at = time.monotonic() + _LOCK_S
        try:
            self._mirror = open_mirror(self._run)
        except (OSError, ValueError) as error:
            raise MachineError(f"{self._run.path} cannot be used: {error}") from None
        if self._mirror is None:
            return False
        api, kind = APIS[self._kind]
        by_label = {"labelSelector": f"{pod_states.SELECTORS[self._kind]}={self._name}"}
        by_name = {"fieldSelector": f"metadata.name={self._name}"}
        self._watches = [
            ObjectWatch(self._server, api, kind, by_name, self._queue),
            ObjectWatch(self._server, "v1", "Pod", by_label, self._queue),
        ]
        for watch in self._watches:
            watch.start()
        return True

    def _drain(self) -> None:
        while True:
            try:
                news = self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(news, Objects):
                self._on_objects(news)
            elif isinstance(news, Lines):
                self._on_lines(news)
            elif isinstance(news, LogEnd):
                self._on_log_end(news)
            elif isinstance(news, Problem):
                self._on_problem(news)

    def _on_objects(self, news: Objects) -> None:
        if news.kind == "Pod":
            self._pods = news.found
            self._head = pod_states.head_of(news.found.values()) or self._head
            if self._read is not None:  # its state, if it is the same pod
                now = news.found.get(self._read["metadata"]["name"], self._read)
                same = now["metadata"].get("uid") == self._read["metadata"].get("uid")
                self._read = now if same else self._read
            return
        self._job_known = True
        self._job = news.found.get(self._name)
        self._job_was_there = self._job_was_there or self._job is not None

    def _on_problem(self, problem: Problem) -> None:
        what = "problem"
        if problem.error is None:
            if self._told.pop(what, None):
                self._tell("", f"job {self._name}: the Kubernetes server answers again")
            return
        message = problem.error.message
        if self._told.get(what, ("", 0.0))[0] != message:
            self._told[what] = (message, time.monotonic())
            self._tell("", f"job {self._name}: {message}; asking again")

    # --- the log of the head ------------------------------------------------------------

    def _read_log(self) -> None:
        """Start to read the log of the head's pod if it is there and is not read yet."""
        if self._log is not None or time.monotonic() < self._log_at:
            return
        head = self._head
        if self._read is None or (self._complete and head is not None and self._is_other(head)):
            if head is None or not pod_states.has_log(head):
                return
            self._read, self._complete = head, False
        if self._complete:
            return
        self._log_is_last = pod_states.has_ended(self._read) or not self._follow
        self._log = self._reader(self._read)
        self._log.start()

    def _is_other(self, head: Object) -> bool:
        return self._mirror is not None and _source(head) != self._mirror.position.source

    def _reader(self, pod: Object) -> LogReader:
        assert self._mirror is not None
        is_new = self._mirror.read_from(_source(pod), pod_states.attempts_before(pod))
        if is_new and self._mirror.record.attempts > 1:
            self._tell("", f"job {self._name}: attempt {self._mirror.record.attempts} begins")
        query = {"container": pod_states.container_of(pod), "timestamps": "true"}
        query["follow"] = "true" if self._follow else "false"
        if self._mirror.since:
            query["sinceTime"] = self._mirror.since
        return LogReader(self._server, pod["metadata"]["name"], query, self._queue)

    def _on_lines(self, news: Lines) -> None:
        if self._mirror is None or news.log is not self._log:
            return
        self._log_pause_s = _AGAIN_S
        for line in self._mirror.take(news.lines):
            at = round(time.time(), 3)
            self._news.append({"event": "said", "time": at, "node": 0, "line": line})

    def _on_log_end(self, end: LogEnd) -> None:
        if end.log is not self._log:
            return
        self._log = None
        gone = isinstance(end.error, Refusal) and end.error.status == GONE
        if gone or (end.error is None and self._log_is_last):
            self._complete = True
            return
        if isinstance(end.error, Silent):  # a run may print nothing for hours
            return
        if end.error is not None and self._log_pause_s >= _LATE_AGAIN_S / 2:
            self._on_problem(Problem("log", end.error))
        self._log_at = time.monotonic() + self._log_pause_s
        self._log_pause_s = min(2 * self._log_pause_s, _LATE_AGAIN_S)

    # --- what is told, and how it ends --------------------------------------------------

    def _is_over(self, mirror: Mirror) -> bool:
        now = time.monotonic()
        decided = self._job is None or pod_states.decision(self._job) is not None
        if not decided:
            self._decided_at = None
            self._tell_state()
            return self._is_given_up(mirror) or mirror.record.exit_code == ExitCode.OK
        if self._decided_at is None:
            self._decided_at = now
        is_read = self._complete or self._head is None or not pod_states.has_log(self._head)
        if not is_read and now - self._decided_at < _LAST_WORDS_S:
            return False
        if mirror.record.ended_at is None:
            self._settle(mirror)
        return True

    def _settle(self, mirror: Mirror) -> None:
        """Record the end of a run whose head has not told it."""
        ending = pod_states.ending_of(self._job, self._head)
        if self._job is None and not self._job_was_there:
            said = "Kubernetes does not know the job any more, and no end is recorded"
            ending = pod_states.Ending("job lost", ExitCode.NODE_LOST, said)
        outcome, code, said = ending
        if outcome == "failed" and not mirror.has_begun:
            outcome = "not started"
        words = f"; the last line it wrote: {mirror.last_words}" if mirror.last_words else ""
        hint = f"see {self._run.batch_log}" if mirror.last_words else ""
        summary = f"job {self._name}: {said}{words}"
        mirror.end(outcome, int(code), summary=summary, hint=hint)

    def _is_given_up(self, mirror: Mirror) -> bool:
        """Delete a job whose containers have not started for long; return whether that is so."""
        found = [pod_states.waiting(pod) for pod in self._current()]
        stuck = [why for why in found if why and why.reason in pod_states.NOT_STARTING]
        if not stuck or not self._follow:
            self._stuck_since = None
            return False
        now, limit_s = time.monotonic(), _limit_s(mirror.record, stuck[0].reason)
        self._stuck_since = self._stuck_since or now
        if now - self._stuck_since < limit_s:
            return False
        why = f"{stuck[0].reason}: {stuck[0].message}" if stuck[0].message else stuck[0].reason
        said = f"job {self._name} did not start within {limit_s:g} s: {why}"
        api, kind = APIS[self._kind]
        try:
            self._server.delete(api, kind, self._name, propagationPolicy="Background")
            hint = "the job was deleted; --image names the image, --join-timeout gives more time"
        except DistrunError as error:
            hint = f"the job is still there: {error.message}"
        mirror.end("not started", int(ExitCode.MACHINE), summary=said, hint=hint)
        return True

    def _current(self) -> list[Object]:
        """Return the pods that have not been replaced."""
        return pod_states.current(list((self._pods or {}).values()))

    def _tell_state(self) -> None:
        """Tell why the job waits, and what only Kubernetes knows of its pods."""
        assert self._job is not None
        pods = self._current()
        for pod in pods:
            uid = str(pod["metadata"].get("uid"))
            if uid not in self._told_pods and (said := pod_states.taken_away(pod)):
                self._told_pods.add(uid)
                self._tell("", f"job {self._name}: {said}")
        if self._mirror is not None and self._mirror.has_begun:
            return
        state, message = pod_states.news_of(self._name, self._job, pods, self._warning_now(pods))
        before = self._told.get(state)
        is_old = before is not None and time.monotonic() - before[1] >= _SAME_STATE_S
        if before is None or (before[0] != message and is_old):
            self._told[state] = (message, time.monotonic())
            self._tell(state, message)

    def _warning_now(self, pods: list[Object]) -> str:
        """Return the newest warning about the job, or a pod whose state does not say why."""
        names = [self._name]
        names += [p["metadata"]["name"] for p in pods if pod_states.is_silent(p)][:1]
        if (pods and len(names) == 1) or time.monotonic() < self._warning_at:
            return self._warning
        self._warning_at = time.monotonic() + _WARNINGS_S
        found: list[Object] = []
        for name in names:
            query = {"fieldSelector": f"involvedObject.name={name}"}
            try:
                found += self._server.list("v1", "Event", query)[0]
            except MachineError:
                return self._warning  # it is a help, and not everybody may read events
        self._warning = pod_states.newest_warning(found, names)
        return self._warning

    def _tell(self, state: str, message: str) -> None:
        at = round(time.time(), 3)
        self._news.append({"event": "job", "time": at, "state": state, "message": message})


def _source(pod: Object) -> str:
    return f"{pod['metadata'].get('uid', '')}/{pod_states.container_state(pod)[1]}"


def _limit_s(found: RunRecord, reason: str) -> float:
    limit_s = pod_states.NOT_STARTING[reason]
    asked = found.plan.get("join_timeout_s")
    if limit_s == pod_states.FIXABLE_S and isinstance(asked, (int, float)):
        return float(asked)
    return limit_s
