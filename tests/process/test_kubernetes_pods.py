"""The pods of a printed job, as processes: command and environment of each, and what it ends with.

The kubelet is missing: two launches on this machine stand for two containers, and the name of the
first pod is the address of this machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distrun.listen import free_port
from tests.conftest import only_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(150)
LIMIT_S = 100.0
SUM = """
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([1.0 + dist.get_rank()])
dist.all_reduce(total)
print("rank", dist.get_rank(), "sum", total.item(), os.environ["GREETING"], flush=True)
open(f"going{dist.get_rank()}", "w").close()
if sys.argv[1] == "wait":
    time.sleep(600)
sys.exit(int(sys.argv[1]) if dist.get_rank() == 1 else 0)
"""


class Pods:
    """The pods of a Job."""

    def __init__(self, job: dict[str, Any], cwd: Path, port: int) -> None:
        self.rules = job["spec"]["podFailurePolicy"]["rules"]
        self._container = job["spec"]["template"]["spec"]["containers"][0]
        self._cwd, self._port = cwd, port
        self.started: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        for index in range(2):
            own = {each["name"]: each.get("value", "k" * 64) for each in self._container["env"]}
            assert own["MASTER_ADDR"] == "train-0.train"
            here = {"MASTER_ADDR": "127.0.0.1", "HOME": str(self._cwd), "OMP_NUM_THREADS": "1"}
            index_of = {"JOB_COMPLETION_INDEX": str(index), "DISTRUN_DIAL_PORT": str(self._port)}
            words = [*self._container["command"][1:], *self._container["args"]]
            self.started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "distrun", *(w.replace("$$", "$") for w in words)],
                    cwd=self._cwd,
                    env={**os.environ, **own, **here, **index_of},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def ended(self) -> tuple[list[int], list[dict[str, Any]], str]:
        """Return the exit codes, the events of the head, and what else was printed."""
        said = [each.communicate(timeout=LIMIT_S) for each in self.started]
        lines = [json.loads(line) for line in said[0][0].splitlines()]
        return [each.returncode for each in self.started], lines, "".join(err for _, err in said)

    def comes_back(self, code: int) -> bool:
        """Return whether a pod that ended with a code is made again, by the policy of the job."""
        (rule,) = [each for each in self.rules if "onExitCodes" in each]
        assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "NotIn")
        return code in rule["onExitCodes"]["values"]


@pytest.fixture
def pods(distrun: Run, tmp_path: Path) -> Iterator[Callable[[str], Pods]]:
    made: list[Pods] = []
    (tmp_path / "train.py").write_text(SUM)
    (tmp_path / "volume").mkdir()

    def make(how: str) -> Pods:
        printed = distrun(
            *("launch", "--on", "kubernetes", "--image", "distrun:1", "--dry-run", "--nodes", "2"),
            *("--nproc-per-node", "1", "--grace", "5s", "--volume", f"v:{tmp_path / 'volume'}"),
            *("--no-check", "--env", "GREETING=$(HOME) $x", "train.py", how),
        )
        job = [each for each in yaml.safe_load_all(printed.stdout) if each][-1]
        made.append(Pods(job, tmp_path, free_port()))
        made[-1].start()
        return made[-1]

    yield make
    for process in (process for each in made for process in each.started):
        process.kill()
        process.communicate()


def test_the_pods_are_one_world_that_the_first_one_records(
    pods: Callable[[str], Pods], tmp_path: Path
) -> None:
    codes, events, said = pods("0").ended()
    assert codes == [0, 0], said
    assert events[0]["event"] == "run" and events[-1]["event"] == "ended"
    assert events[-1]["outcome"] == "succeeded"
    lines = sorted(each["line"] for each in events if each["event"] == "output")
    assert lines == [f"rank {rank} sum 3.0 $(HOME) $x" for rank in (0, 1)]
    logs = only_run_of(tmp_path).glob("logs/*/rank*.log")
    assert {path.parent.name for path in logs} == {"node0", "node1"}


def only_run_of(tmp_path: Path) -> Path:
    """Return the run on the volume: both pods share it, and one has recorded."""
    return only_run(tmp_path / "volume")


def test_the_failure_of_a_rank_ends_all_pods_with_its_code_and_none_comes_back(
    pods: Callable[[str], Pods],
) -> None:
    started = pods("7")
    codes, events, said = started.ended()
    assert codes == [7, 7], said
    assert events[-1]["verdict"]["rank"] == 1
    assert not any(started.comes_back(code) for code in codes)


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_that_is_preempted_ends_all_of_them_and_they_come_back(
    pods: Callable[[str], Pods], tmp_path: Path, index: int
) -> None:
    started = pods("wait")
    for rank in (0, 1):
        wait_until((tmp_path / f"going{rank}").exists, LIMIT_S, f"rank {rank}")
    started.started[index].send_signal(signal.SIGTERM)
    codes, _, said = started.ended()
    assert all(started.comes_back(code) for code in codes), (codes, said)


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_that_is_lost_ends_the_other_and_it_comes_back(
    pods: Callable[[str], Pods], tmp_path: Path, index: int
) -> None:
    started = pods("wait")
    for rank in (0, 1):
        wait_until((tmp_path / f"going{rank}").exists, LIMIT_S, f"rank {rank}")
    started.started[index].kill()
    codes, _, said = started.ended()
    assert started.comes_back(codes[1 - index]), (codes, said)
