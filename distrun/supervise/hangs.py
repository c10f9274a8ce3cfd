"""Looks at the ranks while they run, and finds out whether they hang."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distrun.diagnose.hang.aborted import explain_abort, is_abort
from distrun.diagnose.hang.evidence import Process, Witness
from distrun.diagnose.hang.findings import HangVerdict
from distrun.diagnose.hang.progress import Look, waited_s
from distrun.diagnose.hang.read import counts_of, process_of, record_of
from distrun.diagnose.hang.rule import Rule
from distrun.diagnose.hang.verdict import explain
from distrun.diagnose.places import as_stacks
from distrun.diagnose.verdict import RankEnd
from distrun.plan.model import LaunchPlan
from distrun.supervise.agents import Agent, live_ranks
from distrun.supervise.waits import Waits
from distrun.supervise.whereabouts import Answer, Whereabouts

_ABORTED = -signal.SIGABRT
_CHECK_S = 0.25
_FIRST_LOOKS_S = 1.0
"""A run is looked at after 1, 2, 4, 8 s and so on: short ones are to tell of their ranks, too."""
_MOSTLY = 0.75
"""For how much of the limit those must have been idle, too, who are waited for."""
_AT_WORK_S = 5.0
"""Whoever has made progress within that was at work at the stop."""
_LATE_S = 10.0
"""Ranks that have waited for less, when the run was stopped, are not told: all ranks wait."""
GRACE_S = 10.0
"""What ranks that hang have to end by themselves, at most: their handlers hang too."""


class Hangs:
    """The watch over one attempt.

    Args:
        plan: The plan of the attempt.
        where: What collects the evidence.
    """

    def __init__(self, plan: LaunchPlan, where: Whereabouts) -> None:
        self._plan = plan
        self._where = where
        self._rule = Rule(plan.hang_timeout_s, time.monotonic())
        self.waits = Waits()
        self._printed: Counter[int] = Counter()
        self._next_look = self._next_check = self._began_at = 0.0
        self._idle_s = 0.0
        self.stopping: HangVerdict | None = None
        """The hang for which the world is to be stopped."""
        self.observed: list[HangVerdict] = []
        """Those for which it would have been stopped."""
        self._observed_until = 0.0
        """When the last of them would have been examined again, if it lasts."""
        self._evidence: dict[int, Answer] = {}
        self.last_calls: dict[int, Mapping[str, Any]] = {}
        """What ranks have told of their last collectives when they raised."""
        self._at_stop: dict[int, Witness] = {}
        """What was known of each rank that answered before a stop, but for its answer."""

    def began(self, rank: int) -> None:
        """Note that a rank has started."""
        self._rule.began(rank, time.monotonic())
        self._began_at = self._began_at or time.monotonic()

    def printed(self, rank: int) -> None:
        """Note that a rank has printed something, or has reported a step."""
        self._printed[rank] += 1

    def ended(self, rank: int) -> None:
        """Note that a rank has ended: the others get time, unless they are stopped as well."""
        if not self._where.is_stopping:
            self._rule.ended(rank, time.monotonic())

    def looked(self, event: Mapping[str, Any], clock_offset_s: float) -> None:
        """Note what an agent has seen of its ranks.

        Args:
            event: What it has told.
            clock_offset_s: What to add to a time of its clock to have that of all.
        """
        looks = {
            told["rank"]: Look(
                counts_of(told["answer"]) if told["answer"] else None,
                told["age_s"],
                process_of(told["process"]),
                self._printed[told["rank"]],
            )
            for told in event["ranks"]
        }
        self._rule.looked(time.monotonic(), looks)
        for told in event["ranks"]:
            if record := looks[told["rank"]].record:
                self.waits.looked(told["rank"], record.groups, told.get("calls"), clock_offset_s)

    def stopped(self, event: Mapping[str, Any], host: str) -> None:
        """Note how a rank was when it was asked before a stop; it may take long to end."""
        rank, told = event["rank"], event.get("answer")
        if rank not in self._at_stop:
            look = Look(
                counts_of(told) if told else None,
                event.get("age_s", 0.0),
                process_of(event.get("process")),
                self._printed[rank],
            )
            self._at_stop[rank] = self._rule.at_stop(rank, host, time.monotonic(), look)

    def raised(self, rank: int, answer: Mapping[str, Any]) -> None:
        """Note the last collectives of a rank that has raised."""
        self.last_calls[rank] = answer

    def on_time(
        self, agents: Sequence[Agent], ends: Sequence[RankEnd]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Look, or examine the ranks, if that is due; yield the events about what was found."""
        now = time.monotonic()
        if not self._plan.hang_timeout_s or self.stopping:
            return
        if now >= self._next_look:
            since_s = now - self._began_at if self._began_at else 0.0
            self._next_look = now + min(self._rule.look_s, max(_FIRST_LOOKS_S, since_s))
            self.waits.next_window()
            for agent in agents:
                if agent.ranks:
                    agent.send("look")
        request = self._where.of_hangs
        if now >= self._next_check and not request.is_open:
            self._next_check = now + _CHECK_S
            if (idle_s := self._rule.idle_s(now)) is not None:
                self._idle_s = idle_s
                self._where.ask(agents, request)
        if (answers := request.answers(live_ranks(agents))) is not None:
            yield from self._judge(answers, agents, ends)

    def _judge(
        self, answers: Mapping[int, Answer], agents: Sequence[Agent], ends: Sequence[RankEnd]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if all(answer == Answer() for answer in answers.values()):
            self._next_check = time.monotonic() + self._rule.look_s
            return  # no node answers: what was known of its ranks before is no hang
        if self._go_on(answers):
            return
        witnesses = self._witnesses(answers, agents, ends)
        found = explain(witnesses, idle_s=self._idle_s)
        least_s = _MOSTLY * min(self._idle_s, self._plan.hang_timeout_s)
        if found.kind == "late" or _is_at_work(found, witnesses, least_s):
            self._next_check = time.monotonic() + self._rule.look_s
            return  # who is waited for may be of another group
        if not found.is_hang or not self._sees(found, witnesses):
            self._rule.examined()
            yield "no_progress", {"for_s": round(self._idle_s), "sentence": found.sentence}
            return
        self._evidence = dict(answers)
        stops = self._plan.stops_on_hang
        if stops:
            self.stopping = found
            self._where.at_stop = dict(answers)
        else:
            self._rule.examined()
            self._observed_until = time.monotonic() + self._idle_s + _LATE_S
            if self.observed and _is_same(found, self.observed[-1]):
                self.observed.pop()  # it lasts
            self.observed.append(found)
        yield "hang", {"stops": stops, "verdict": found.to_json()}

    def _go_on(self, answers: Mapping[int, Answer]) -> bool:
        """Return whether ranks have made progress while they were asked, so that none is idle."""
        now = time.monotonic()
        for rank, answer in answers.items():
            if answer.flight:
                self._rule.answered(rank, counts_of(answer.flight), now)
        return self._rule.idle_s(now) is None

    def _sees(self, found: HangVerdict, witnesses: Mapping[int, Witness]) -> bool:
        """Return whether the ranks that are waited for are watched: those of a node that
        supervises itself are not, and may be at work."""
        if self._plan.supervised_ranks == self._plan.world_size:
            return True
        return bool(found.culprits) and set(found.culprits) <= set(witnesses)

    def new_evidence(self) -> dict[int, Answer]:
        """Return what the ranks have answered in the last hang, once."""
        found, self._evidence = self._evidence, {}
        return found

    def at_stop(
        self, agents: Sequence[Agent], ends: Sequence[RankEnd], *, gave_up: bool = False
    ) -> HangVerdict | None:
        """Return who waited for whom when the world was stopped; None if nobody did for long.

        Args:
            agents: Those of the world.
            ends: How its ranks have ended.
            gave_up: A rank has waited until torch's own timeout, and that ended the world.
        """
        answers = self._where.at_stop
        if gave_up and self.observed and time.monotonic() < self._observed_until:
            return self.observed[-1]
        witnesses = self._witnesses(answers, agents, ends, gave_up=gave_up)
        lasted_s = max(map(waited_s, witnesses.values()), default=0.0)
        if not answers or (lasted_s < _LATE_S and not gave_up):
            return None
        found = explain(witnesses, idle_s=None)
        if _is_at_work(found, witnesses, _AT_WORK_S):
            return None
        return found if found.is_hang else None

    def at_abort(self, agents: Sequence[Agent], ends: Sequence[RankEnd]) -> HangVerdict | None:
        """Return which ranks differ if gloo has aborted one for that; else None."""
        aborted = [e.rank for e in ends if e.exit_code == _ABORTED and is_abort(e.last_words)]
        if not aborted:
            return None
        found = self._witnesses(self._where.at_stop, agents, ends)
        for end in ends:
            if end.rank not in aborted and (told := self.last_calls.get(end.rank)):
                waited = as_stacks(str(end.report["traceback"])) if end.report else ""
                found[end.rank] = Witness(
                    end.rank, end.host, record_of(told), stacks=waited, process=Process()
                )
        return explain_abort(found, aborted)

    def _witnesses(
        self,
        answers: Mapping[int, Answer],
        agents: Sequence[Agent],
        ends: Sequence[RankEnd],
        *,
        gave_up: bool = False,
    ) -> dict[int, Witness]:
        """Return what is known of every rank: of those that lived when they were asked, and of
        those that had ended."""
        now = time.monotonic()
        hosts = {end.rank: end.host for end in ends}
        hosts |= {rank: agent.host for agent in agents for rank in agent.ranks}
        found = {rank: self._rule.witness(rank, host, now) for rank, host in hosts.items()}
        found |= self._at_stop
        for rank in {*answers, *(rank for agent in agents for rank in agent.ranks)}:
            found[rank] = _answered(found[rank], answers.get(rank))
        for end in ends:
            if gave_up and end.report and _gave_up(end):  # it tells where it waited
                waited = as_stacks(str(end.report["traceback"]))
                found[end.rank] = Witness(
                    end.rank, end.host, stacks=waited, process=Process(), gave_up=True
                )
            elif end.rank not in answers:
                seen = found[end.rank]
                found[end.rank] = replace(seen, exit_code=end.exit_code, stacks=end.stacks)
        return found


def _is_at_work(found: HangVerdict, witnesses: Mapping[int, Witness], least_s: float) -> bool:
    """Return whether a rank that is waited for has made progress of late."""
    known = [w for rank in found.culprits if (w := witnesses.get(rank)) and w.exit_code is None]
    return any(w.idle_s is not None and w.idle_s < least_s and not w.is_busy for w in known)


def _is_same(found: HangVerdict, before: HangVerdict) -> bool:
    return (found.group, found.op, found.seq) == (before.group, before.op, before.seq)


def _gave_up(end: RankEnd) -> bool:
    """Return whether it waited for others until torch's timeout, or one of its peers did so."""
    return not end.after_stop and (end.timed_out or end.is_victim)


def _answered(seen: Witness, answer: Answer | None) -> Witness:
    """Return what is known of a rank, with its answer."""
    if answer is None or answer == Answer():
        return replace(seen, process=None)
    process = process_of(answer.process) or Process(answer.state)
    found = replace(seen, stacks=answer.stacks, process=process)
    if answer.flight:
        found = replace(found, record=record_of(answer.flight), age_s=answer.age_s)
    return found
