"""The watch for hangs in a world: when ranks are looked at, examined, and stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distrun.errors import ExitCode
from distrun.supervise import hangs
from distrun.supervise.ending import describe
from distrun.supervise.hangs import GRACE_S
from tests.unit.supervise.played import plan_of, rank_ended, report
from tests.unit.supervise.test_world import Played

TERM = int(signal.SIGTERM)
USER = __file__
TORCH = "/usr/lib/python3/site-packages/torch/distributed/distributed_c10d.py"


def answer(enqueued: int, function: str = "") -> dict[str, Any]:
    """What a rank answers; with a function it is in that call of torch.distributed."""
    entries = [
        {
            "collective_seq_id": seq,
            "profiling_name": "gloo:all_reduce",
            "process_group": ["0", "default_pg"],
            "input_sizes": [[4]],
            "input_dtypes": ["Float"],
            "retired": seq < enqueued or not function,
            "time_created_ns": 10**18,
        }
        for seq in range(1, enqueued + 1)
    ]
    done = enqueued - bool(function)
    status = {"last_enqueued_collective": str(enqueued), "last_completed_collective": str(done)}
    return {
        "time_ns": 10**18 + 60 * 10**9,
        "groups": [{"name": "0", "desc": "default_pg", "ranks": [0, 1], "timeout_s": 1800.0}],
        "frames": [[USER, 7 + (not function), "train"]],
        "call": {"function": function, "group": "0", "arguments": {}} if function else None,
        "trace": {"entries": entries, "pg_status": {"0": status}},
    }


PROCESS = {"state": "S", "is_traced": False, "cpu_s": 1.0, "io_nbytes": 0, "faults": 0}
WAITING, ABSENT = answer(4, "all_reduce"), answer(3)


class Job:
    """Two ranks on two played nodes, and what they answer."""

    def __init__(self, played: Played) -> None:
        self.played = played
        self.answers: dict[int, dict[str, Any] | None] = {0: WAITING, 1: ABSENT}
        self.silent: set[int] = set()
        """Nodes that do not answer."""
        self.working: set[int] = set()
        """Nodes whose rank uses CPU time."""
        self.when_examined: dict[int, dict[str, Any]] = {}
        """Answers that change as the stacks are asked for."""
        self.examined_at = 0.0
        self.code = -TERM
        """With which its rank ends."""
        for rank in range(len(played.agents)):
            played.say(rank, "rank_started", rank=rank, pid=7)

    def pass_time_until(self, condition: Callable[[], object]) -> None:
        """Let time pass; the nodes answer what they are asked."""

        def passes() -> object:
            self.played.world.on_time()
            for node, agent in enumerate(self.played.agents):
                for command in agent.told():
                    self._obey(node, command)
            return condition()

        self.played.pass_time_until(passes)

    def _obey(self, node: int, command: dict[str, Any]) -> None:
        if node in self.silent:
            return
        if command["command"] == "stacks" and node in self.when_examined:
            self.answers[node] = self.when_examined.pop(node)
            self.examined_at = time.monotonic()
        cpu_s = 10 * time.monotonic() if node in self.working else 1.0
        process = {**PROCESS, "cpu_s": cpu_s}
        known = {"process": process, "answer": self.answers[node], "age_s": 0.0}
        if command["command"] == "look":
            self.played.say(node, "looked", ranks=[{"rank": node, **known}])
        elif command["command"] == "stacks":
            self.played.say(node, "stacks", rank=node, stacks="", state="S", **known)
        elif command["command"] == "stop" and self.played.agents[node].seen.ranks:
            self.played.say(node, rank_ended(node, self.code))
            self.stopped_with = command


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """Make a job in which rank 0 waits for rank 1, that is looked at often."""
    made: list[Job] = []

    def make(**changes: Any) -> Job:
        plan = plan_of(**{"hang_timeout_s": 0.3, **changes})
        made.append(Job(Played(plan, joined=True)))
        return made[-1]

    monkeypatch.setattr("distrun.diagnose.hang.rule._MIN_LOOK_S", 0.02)
    yield make
    for each in made:
        for agent in each.played.agents:
            agent.close()


Make = Callable[..., Job]


def test_a_job_that_hangs_is_told_and_stopped_and_ends_with_124(job: Make) -> None:
    it = job()
    it.pass_time_until(lambda: it.played.world.stopping)
    (told,) = it.played.tells("hang")
    assert told["stops"] and told["verdict"]["culprits"] == (1,)
    assert told["verdict"]["op"] == "all_reduce" and told["verdict"]["seq"] == 4
    it.pass_time_until(lambda: len(it.played.world.ends) == 2)
    assert it.stopped_with["grace_s"] == GRACE_S, "its handlers hang too"
    ending = describe(it.played.world, None)
    assert ending.outcome == "hang" and ending.exit_code == ExitCode.TIME_LIMIT
    assert f"hang: {ending.summary}" == told["verdict"]["sentence"]
    assert ending.verdict_json() == {"hang": told["verdict"]}
    assert set(it.played.world.where.at_stop) == {0, 1}


def test_observed_it_is_told_and_goes_on(job: Make) -> None:
    it = job(stops_on_hang=False)
    it.pass_time_until(lambda: it.played.tells("hang"))
    assert not it.played.tells("hang")[0]["stops"] and not it.played.world.stopping
    assert len(it.played.world.hangs.new_evidence()) == 2
    assert not it.played.world.hangs.new_evidence(), "it is written once"
    it.pass_time_until(lambda: len(it.played.tells("hang")) == 2)
    assert len(it.played.world.hangs.observed) == 1, "it is the same hang, and lasts"


def test_nobody_looks_without_a_timeout(job: Make) -> None:
    it = job(hang_timeout_s=0.0)
    it.played.world.on_time()
    assert [agent.told_names() for agent in it.played.agents] == [["start"], ["start"]]


def test_ranks_that_all_do_nothing_are_told_and_not_stopped(job: Make) -> None:
    it = job()
    it.answers = {0: ABSENT, 1: ABSENT}
    it.pass_time_until(lambda: it.played.tells("no_progress"))
    assert not it.played.world.stopping and not it.played.tells("hang")


def test_a_rank_that_goes_on_while_it_is_asked_has_the_whole_limit_again(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.diagnose.hang.missing._AT_WORK_S", 0.1)
    it = job(hang_timeout_s=0.5)
    it.answers, it.when_examined = {0: ABSENT, 1: ABSENT}, {0: WAITING}
    it.pass_time_until(lambda: it.played.tells("hang"))
    assert time.monotonic() - it.examined_at >= 0.5


def test_output_is_progress(job: Make) -> None:
    it = job(hang_timeout_s=0.2)
    looks = 0

    def prints() -> bool:
        nonlocal looks
        looks += 1
        it.played.world.hangs.printed(1)
        return looks > 40

    it.pass_time_until(prints)
    assert not it.played.tells("hang")


def test_a_job_that_is_stopped_tells_who_had_waited_for_long(job: Make) -> None:
    it = job(hang_timeout_s=0.0)
    it.played.say(0, rank_ended(0, 1, report=report("Timed out waiting", "RuntimeError")))
    it.pass_time_until(lambda: len(it.played.world.ends) == 2)
    ending = describe(it.played.world, None)
    assert ending.outcome == "failed" and ending.verdict and ending.verdict.rank == 0


def test_ranks_that_waited_for_a_moment_are_not_told(job: Make) -> None:
    it = job(hang_timeout_s=0.0)
    it.answers[0] = {**WAITING, "time_ns": 10**18 + 10**9}
    world = it.played.world
    world.where.ask_before_stop(world.agents)
    world.stop(TERM, 1.0)
    it.pass_time_until(lambda: len(world.ends) == 2)
    assert world.hangs.at_stop(world.agents, world.ends) is None
    assert hangs._LATE_S > 1.0


def test_ranks_that_waited_for_long_are_told(job: Make) -> None:
    it = job(hang_timeout_s=0.0)
    world = it.played.world
    world.where.ask_before_stop(world.agents)
    world.stop(TERM, 1.0)
    it.pass_time_until(lambda: len(world.ends) == 2)
    found = world.hangs.at_stop(world.agents, world.ends)
    assert found is not None and found.culprits == (1,)


def test_ranks_of_a_node_that_does_not_answer_are_told_and_not_stopped(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.supervise.whereabouts._ANSWER_S", 0.1)
    it = job()
    it.silent = {1}
    it.pass_time_until(lambda: it.played.tells("no_progress"))
    (told,) = it.played.tells("no_progress")
    assert "rank 1 on node1 is on a node that does not answer" in told["sentence"]
    assert not it.played.world.stopping


def test_ranks_of_nodes_that_do_not_answer_any_more_are_not_judged_by_what_was_known_before(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.supervise.whereabouts._ANSWER_S", 0.3)
    monkeypatch.setattr("distrun.diagnose.hang.missing._AT_WORK_S", 0.2)
    it, began = job(hang_timeout_s=1.0), time.monotonic()
    request = it.played.world.where.of_hangs
    it.pass_time_until(lambda: time.monotonic() > began + 0.5)  # they are looked at
    it.silent = {0, 1}
    it.pass_time_until(lambda: request.is_open)
    it.pass_time_until(lambda: not request.is_open)
    assert not it.played.tells("hang") and not it.played.world.stopping
    it.silent = set()
    it.pass_time_until(lambda: it.played.tells("hang"))


def test_ranks_of_a_node_that_supervises_itself_may_be_at_work(job: Make) -> None:
    it = job(own_node=0, local=False)
    it.pass_time_until(lambda: it.played.tells("no_progress"))
    assert "waits for rank 1" in it.played.tells("no_progress")[0]["sentence"]
    assert not it.played.world.stopping


def of_groups(frame: int, *groups: tuple[str, list[int], bool]) -> dict[str, Any]:
    """What a rank answers that is in groups, and waits in some of them."""
    entries = [
        {
            "collective_seq_id": 1,
            "pg_id": int(name),
            "profiling_name": "gloo:all_reduce",
            "process_group": [name, f"group{name}"],
            "retired": False,
            "time_created_ns": 10**18,
        }
        for name, _, waits in groups
        if waits
    ]
    status = {
        name: {"last_enqueued_collective": str(int(waits)), "last_completed_collective": "0"}
        for name, _, waits in groups
    }
    first = next((name for name, _, waits in groups if waits), "")
    return {
        "time_ns": 10**18 + 60 * 10**9,
        "groups": [{"name": n, "desc": f"group{n}", "ranks": ranks} for n, ranks, _ in groups],
        "frames": [*([[TORCH, 3252, "all_reduce"]] if first else []), [USER, frame, "train"]],
        "call": {"function": "all_reduce", "group": first, "arguments": {}} if first else None,
        "trace": {"entries": entries, "pg_status": status},
    }


def test_a_rank_at_work_is_waited_for_by_ranks_of_groups_that_it_is_not_in(
    job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.diagnose.hang.missing._AT_WORK_S", 0.01)  # looks are rarer
    it = job(nnodes=3, hang_timeout_s=1.5)
    it.answers = {
        0: of_groups(3, ("1", [0, 1], True)),
        1: of_groups(3, ("1", [0, 1], False), ("2", [1, 2], True)),
        2: of_groups(9, ("2", [1, 2], False)),
    }
    it.working = {2}
    looks = 0

    def has_looked_often() -> bool:
        nonlocal looks
        looks += 1
        return looks > 80

    it.pass_time_until(has_looked_often)
    assert not it.played.tells("hang") + it.played.tells("no_progress")
    it.working = set()
    it.pass_time_until(lambda: it.played.tells("hang"))
    assert it.played.tells("hang")[0]["verdict"]["culprits"] == (2,)


def test_ranks_that_end_with_0_when_a_hang_stops_them_have_not_succeeded(job: Make) -> None:
    it = job()
    it.code = 0
    it.pass_time_until(lambda: len(it.played.world.ends) == 2)
    assert not it.played.world.succeeded
    assert describe(it.played.world, None).exit_code == ExitCode.TIME_LIMIT


@pytest.mark.parametrize("works", [False, True], ids=["asleep", "at work"])
def test_a_stop_between_two_looks_tells_who_was_asleep_and_not_who_was_at_work(
    job: Make, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    monkeypatch.setattr("distrun.supervise.hangs._AT_WORK_S", 0.4)
    monkeypatch.setattr("distrun.diagnose.hang.missing._AT_WORK_S", 0.4)
    monkeypatch.setattr("distrun.diagnose.hang.rule._MIN_LOOK_S", 600.0)
    it = job(hang_timeout_s=600.0)
    it.working = {1} if works else set()
    world, began = it.played.world, time.monotonic()
    it.pass_time_until(lambda: time.monotonic() > began + 0.8)
    world.where.ask_before_stop(world.agents)
    world.stop(TERM, 5.0)
    it.pass_time_until(lambda: len(world.ends) == 2)
    began = time.monotonic()
    it.pass_time_until(lambda: time.monotonic() > began + 0.8)  # as ranks that save before they end
    found = world.hangs.at_stop(world.agents, world.ends)
    assert (found is None) == works
