"""A run on Kubernetes is followed to its end, and recorded here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distrun.api import kubernetes_jobs, runs
from distrun.runs.directory import RunDirectory
from distrun.schedulers.kube_access import Access
from tests.process.kubernetes_jobs import (
    JOB,
    NAME,
    Cluster,
    a_record,
    a_run,
    ended,
    lines_of,
    log_of,
    objects,
)
from tests.process.kubernetes_server import ApiServer, api_server

pytestmark = pytest.mark.timeout(60)
Event = dict[str, Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as started:
        yield started


@pytest.fixture
def run(server: ApiServer, tmp_path: Path) -> RunDirectory:
    access = Access(kubeconfig=str(server.kubeconfig()))
    return kubernetes_jobs.submit(objects(), access, tmp_path / "runs", a_record())[0]


class Follower:
    """Follows a run in a thread."""

    def __init__(self, run: RunDirectory) -> None:
        self.events: list[Event] = []
        self._run = run
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        self._news = threading.Condition()

    def _follow(self) -> None:
        for event in runs.events(self._run, follow=True):
            if event:
                with self._news:
                    self.events.append(event)
                    self._news.notify_all()

    def until(self, holds: Callable[[list[Event]], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: holds(self.events), 20), self.events

    def to_end(self) -> Event:
        self._thread.join(30)
        assert not self._thread.is_alive(), self.events
        return self.events[-1]

    def words(self, kind: str = "job") -> list[str]:
        key = "message" if kind == "job" else "line"
        return [event[key] for event in self.events if event["event"] == kind]


def test_a_run_is_followed_to_its_end_and_recorded_here(
    server: ApiServer, run: RunDirectory
) -> None:
    follower, cluster = Follower(run), Cluster(server)
    log = cluster.start()
    for line in lines_of(*a_run(code=3)):
        log.add(line)
    cluster.end(3)
    last = follower.to_end()
    assert (last["event"], last["exit_code"]) == ("ended", 3)
    found = runs.find(run.path.parent, run.run_id)[1]
    assert (found.outcome, found.exit_code, found.nproc_per_node) == ("failed", 3, 1)
    assert found.state == "ended"
    assert log_of(run.path, 0) == "line 0\nline 2\n"
    assert log_of(run.path, 1) == "line 1\n"
    assert runs.verdict(run) == {"rank": 1, "node": 1}
    names = [json.loads(line)["event"] for line in run.events.path.read_text().splitlines()]
    assert names == [
        *("attempt_started", "world_started", "rank_started", "rank_started", "ended"),
    ]


@pytest.mark.parametrize("cuts", [[1], [150, 1, 400], [777] * 6])
def test_a_log_that_is_cut_is_read_on_without_loss_and_without_a_line_twice(
    server: ApiServer, run: RunDirectory, cuts: list[int]
) -> None:
    cluster, follower = Cluster(server), Follower(run)
    log = cluster.start()
    log.cuts = list(cuts)
    log.add("entrypoint: hello")
    log.add("entrypoint: hello")
    for line in lines_of(*a_run(lines=40)):
        log.add(line)
    cluster.end(0)
    assert follower.to_end()["exit_code"] == 0
    assert len(log.asked) > len(cuts)
    for node in (0, 1):
        expected = "".join(f"line {i}\n" for i in range(40) if i % 2 == node)
        assert log_of(run.path, node) == expected
    assert follower.words("said") == ["entrypoint: hello"] * 2
    assert run.batch_log.path.read_text() == "entrypoint: hello\n" * 2


def test_a_follower_that_is_killed_is_followed_by_one_that_goes_on(
    server: ApiServer, run: RunDirectory
) -> None:
    cluster = Cluster(server)
    log = cluster.start()
    lines = lines_of(*a_run(lines=40))
    for line in lines[:20]:
        log.add(line)
    first = runs.events(run, follow=True)
    assert any(event.get("event") == "world_started" for event in first)
    first.close()
    with run.log(0, 0).path.open("a") as torn:  # what a kill may leave
        torn.write("half a li")
    for line in lines[20:]:
        log.add(line)
    cluster.end(0)
    assert Follower(run).to_end()["exit_code"] == 0
    assert log_of(run.path, 0) == "".join(f"line {i}\n" for i in range(0, 40, 2))


def test_of_two_followers_one_writes_and_both_see_the_end(
    server: ApiServer, run: RunDirectory
) -> None:
    cluster, followers = Cluster(server), [Follower(run), Follower(run)]
    log = cluster.start()
    lines = lines_of(*a_run())
    for line in lines[:-1]:
        log.add(line)
    for follower in followers:
        follower.until(lambda events: any(e["event"] == "world_started" for e in events))
    log.add(lines[-1])
    cluster.end(0)
    assert [follower.to_end()["outcome"] for follower in followers] == ["succeeded"] * 2
    assert log_of(run.path, 0) == "line 0\nline 2\n"


def test_lines_that_the_node_no_longer_has_are_counted(
    server: ApiServer, run: RunDirectory
) -> None:
    cluster, follower = Cluster(server), Follower(run)
    log = cluster.start()
    lines = lines_of(*a_run(lines=10))
    for line in lines[:3] + lines[9:]:
        log.add(line)
    cluster.end(0)
    follower.to_end()
    (notice,) = [event for event in follower.events if event["event"] == "notice"]
    assert notice["message"].startswith("6 lines of the run's output are lost")


def test_a_job_that_kubernetes_starts_again_goes_on_in_the_same_run(
    server: ApiServer, run: RunDirectory
) -> None:
    cluster, follower = Cluster(server), Follower(run)
    log = cluster.start()
    for line in lines_of(*a_run(code=143)):
        log.add(line)
    log.closed = True
    evicted = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    cluster.set(0, ended(143, conditions=evicted))
    follower.until(lambda _: runs.find(run.path.parent, run.run_id)[1].exit_code == 143)
    log = cluster.start(again="2")
    for line in lines_of(*a_run(code=0)):
        log.add(line)
    cluster.end(0, again="2")
    assert follower.to_end()["exit_code"] == 0
    found = runs.find(run.path.parent, run.run_id)[1]
    assert (found.outcome, found.attempts) == ("succeeded", 2)
    assert not runs.verdict(run)
    assert "attempt 2 begins" in log_of(run.path, 0)
    assert log_of(run.path, 0).count("line 0\n") == 2


def test_words_before_the_launch_and_its_exit_code_are_kept(
    server: ApiServer, run: RunDirectory
) -> None:
    cluster, follower = Cluster(server), Follower(run)
    log = cluster.start()
    log.add("Traceback (most recent call last):")
    log.add("ModuleNotFoundError: No module named 'distrun'")
    cluster.end(1)
    last = follower.to_end()
    assert (last["outcome"], last["exit_code"]) == ("not started", 1)
    assert "No module named 'distrun'" in last["summary"]
    assert str(run.batch_log) in last["hint"]
    assert NAME in last["summary"]
    assert follower.words("said")[0].startswith("Traceback")


def test_the_end_of_a_job_that_was_deleted_is_recorded(
    server: ApiServer, run: RunDirectory
) -> None:
    cluster, follower = Cluster(server), Follower(run)
    cluster.start()
    follower.until(lambda events: any("started" in e.get("message", "") for e in events))
    for name, log in list(server.logs.items()):
        log.closed = True
        del server.logs[name]  # the garbage collector takes the pods, too
    server.delete(JOB)
    last = follower.to_end()
    assert (last["outcome"], last["exit_code"]) == ("cancelled", 143)
