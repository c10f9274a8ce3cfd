"""A run on Kubernetes is followed to its end, and recorded here."""

from __future__ import annotations

import json

import pytest

from distrun.api import runs
from distrun.runs.directory import RunDirectory
from tests.process.kubernetes_jobs import (
    JOB,
    NAME,
    Cluster,
    Follower,
    a_run,
    ended,
    lines_of,
    log_of,
)
from tests.process.kubernetes_server import ApiServer

pytestmark = pytest.mark.timeout(60)


def test_a_run_is_followed_to_its_end_and_recorded_here(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    follower, cluster = Follower(kube_run), Cluster(kube)
    log = cluster.start()
    for line in lines_of(*a_run(code=3)):
        log.add(line)
    cluster.end(3)
    last = follower.to_end()
    assert (last["event"], last["exit_code"]) == ("ended", 3)
    found = runs.find(kube_run.path.parent, kube_run.run_id)[1]
    assert (found.outcome, found.exit_code, found.nproc_per_node) == ("failed", 3, 1)
    assert found.state == "ended"
    assert log_of(kube_run.path, 0) == "line 0\nline 2\n"
    assert log_of(kube_run.path, 1) == "line 1\n"
    assert runs.verdict(kube_run) == {"rank": 1, "node": 1}
    names = [json.loads(line)["event"] for line in kube_run.events.path.read_text().splitlines()]
    assert names == [
        *("attempt_started", "world_started", "rank_started", "rank_started", "ended"),
    ]


@pytest.mark.parametrize("cuts", [[1], [150, 1, 400], [777] * 6])
def test_a_log_that_is_cut_is_read_on_without_loss_and_without_a_line_twice(
    kube: ApiServer, kube_run: RunDirectory, cuts: list[int]
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
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
        assert log_of(kube_run.path, node) == expected
    assert follower.words("said") == ["entrypoint: hello"] * 2
    assert kube_run.batch_log.path.read_text() == "entrypoint: hello\n" * 2


def test_a_follower_that_is_killed_is_followed_by_one_that_goes_on(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster = Cluster(kube)
    log = cluster.start()
    lines = lines_of(*a_run(lines=40))
    for line in lines[:20]:
        log.add(line)
    first = runs.events(kube_run, follow=True)
    assert any(event.get("event") == "world_started" for event in first)
    first.close()
    with kube_run.log(0, 0).path.open("a") as torn:  # what a kill may leave
        torn.write("half a li")
    for line in lines[20:]:
        log.add(line)
    cluster.end(0)
    assert Follower(kube_run).to_end()["exit_code"] == 0
    assert log_of(kube_run.path, 0) == "".join(f"line {i}\n" for i in range(0, 40, 2))


def test_of_two_followers_one_writes_and_both_see_the_end(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, followers = Cluster(kube), [Follower(kube_run), Follower(kube_run)]
    log = cluster.start()
    lines = lines_of(*a_run())
    for line in lines[:-1]:
        log.add(line)
    for follower in followers:
        follower.until(lambda events: any(e["event"] == "world_started" for e in events))
    log.add(lines[-1])
    cluster.end(0)
    assert [follower.to_end()["outcome"] for follower in followers] == ["succeeded"] * 2
    assert log_of(kube_run.path, 0) == "line 0\nline 2\n"


def test_lines_that_the_node_no_longer_has_are_counted(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    lines = lines_of(*a_run(lines=10))
    for line in lines[:3] + lines[9:]:
        log.add(line)
    cluster.end(0)
    follower.to_end()
    (notice,) = [event for event in follower.events if event["event"] == "notice"]
    assert notice["message"].startswith("6 lines of the run's output are lost")


def test_a_job_that_kubernetes_starts_again_goes_on_in_the_same_run(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    for line in lines_of(*a_run(code=143)):
        log.add(line)
    log.closed = True
    evicted = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    cluster.set(0, ended(143, conditions=evicted))
    follower.until(lambda _: runs.find(kube_run.path.parent, kube_run.run_id)[1].exit_code == 143)
    log = cluster.start(again="2")
    for line in lines_of(*a_run(code=0)):
        log.add(line)
    cluster.end(0, again="2")
    assert follower.to_end()["exit_code"] == 0
    found = runs.find(kube_run.path.parent, kube_run.run_id)[1]
    assert (found.outcome, found.attempts) == ("succeeded", 2)
    assert not runs.verdict(kube_run)
    assert "attempt 2 begins" in log_of(kube_run.path, 0)
    assert log_of(kube_run.path, 0).count("line 0\n") == 2


def test_words_before_the_launch_and_its_exit_code_are_kept(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    log = cluster.start()
    log.add("Traceback (most recent call last):")
    log.add("ModuleNotFoundError: No module named 'distrun'")
    cluster.end(1)
    last = follower.to_end()
    assert (last["outcome"], last["exit_code"]) == ("not started", 1)
    assert "No module named 'distrun'" in last["summary"]
    assert str(kube_run.batch_log) in last["hint"]
    assert NAME in last["summary"]
    assert follower.words("said")[0].startswith("Traceback")


def test_the_end_of_a_job_that_was_deleted_is_recorded(
    kube: ApiServer, kube_run: RunDirectory
) -> None:
    cluster, follower = Cluster(kube), Follower(kube_run)
    cluster.start()
    follower.until(lambda events: any("started" in e.get("message", "") for e in events))
    for name, log in list(kube.logs.items()):
        log.closed = True
        del kube.logs[name]  # the garbage collector takes the pods, too
    kube.delete(JOB)
    last = follower.to_end()
    assert (last["outcome"], last["exit_code"]) == ("cancelled", 143)
