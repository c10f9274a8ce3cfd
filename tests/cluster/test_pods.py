"""The pods of `--on kubernetes`, run by podman: as any uid, read-only, found by their names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distrun.api.asked import Asked
from distrun.api.manifests import prepare_kubernetes
from distrun.spec import read
from tests.cluster.containers import LIMIT_S, ROOT
from tests.cluster.lab import Lab
from tests.cluster.pods import pods_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]  # the first one may build the image

_SHARED = {"volume": ["claim:/data"]}
"""Checkpoints need a directory that all nodes share."""
_TRAIN = ("recipes/ddp.py", "--steps", "40")
_SAVES = """
import signal, sys, time
import torch, torch.distributed as dist

def save(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
dist.init_process_group("gloo")
dist.barrier()
print("begun", flush=True)
time.sleep(600)
"""


class Pods:
    """The pods of one job, the head first."""

    def __init__(self, lab: Lab, names: list[str]) -> None:
        self.lab = lab
        self.names = names

    def events(self) -> list[dict[str, Any]]:
        """Return what the head has printed."""
        printed = self.lab.podman("logs", self.names[0]).stdout
        return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]

    def output(self) -> str:
        """Return the output of all ranks."""
        return "\n".join(each["line"] for each in self.events() if each["event"] == "output")

    def ends(self) -> list[int]:
        """Wait for the end of all, and return their exit codes."""
        return [self.lab.ends(name) for name in self.names]


class Cluster:
    """Starts the pods of jobs.

    Args:
        lab: Where they run.
        directory: For files that are mounted in them.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._directory = directory

    def start(self, *words: str, **flags: Any) -> Pods:
        """Render the job of a script, and start its pods.

        Args:
            *words: The script and its arguments.
            **flags: Fields of the job.
        """
        script, *args = words
        given = {"script": script, "args": tuple(args), "on": "kubernetes", "image": "distrun"}
        made = prepare_kubernetes(Asked(*read.job({**given, **flags})))
        network, names = self._lab.network(), []
        self._directory.chmod(0o755)
        for options, command in pods_of(made.objects, self._directory):
            names.append(self._lab.start(*command, options=(f"--network={network}", *options)))
        return Pods(self._lab, names)


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Pods that run from the root of this work tree; the image has the same recipes."""
    monkeypatch.chdir(ROOT)
    (directory := tmp_path / "mounted").mkdir()
    return Cluster(lab, directory)


@pytest.fixture(scope="module")
def losses_of_a_local_run(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of two emulated nodes of this machine."""
    runs = tmp_path_factory.mktemp("local") / "runs"
    words = ("launch", "--nodes=2", "--nproc-per-node=1", f"--runs-dir={runs}", *_TRAIN)
    argv = [sys.executable, "-m", "distrun", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    losses = _losses(done.stdout)
    assert len(losses) > 1, done.stdout + done.stderr
    return losses


@pytest.mark.ci_cases(3)
@pytest.mark.parametrize("kind", ["job", "jobset", "trainjob"])
def test_two_pods_train_to_the_loss_of_the_local_run(
    cluster: Cluster, losses_of_a_local_run: list[float], kind: str
) -> None:
    table = {**_SHARED, "kind": kind}
    pods = cluster.start(*_TRAIN, nodes="2", nproc_per_node="1", kubernetes=table)
    assert pods.ends() == [0, 0], pods.output()
    ended = pods.events()[-1]
    assert (ended["event"], ended["outcome"]) == ("ended", "succeeded")
    # a pod has all cores for its rank, emulated nodes share them: sums round differently
    assert _losses(pods.output()) == pytest.approx(losses_of_a_local_run, rel=1e-4)
    assert "accuracy" in pods.output()


def test_a_pod_that_is_evicted_lets_all_ranks_save(
    cluster: Cluster, lab: Lab, tmp_path: Path
) -> None:
    """pid 1 is the launcher itself: a manifest's command takes the place of the entry point."""
    (script := tmp_path / "train.py").write_text(_SAVES)
    table = {"configmap": True}
    pods = cluster.start(str(script), nodes="2", nproc_per_node="1", kubernetes=table)
    lab.until(pods.names[0], "begun")
    lab.podman("stop", pods.names[1])
    assert pods.ends() == [143, 143], pods.output()
    assert pods.output().count("saved") == 2


def test_a_pod_that_is_killed_is_named(cluster: Cluster, lab: Lab) -> None:
    pods = cluster.start("recipes/ddp.py", nodes="2", nproc_per_node="1", kubernetes=_SHARED)
    lab.until(pods.names[0], "step 1/")
    lab.podman("kill", pods.names[1])
    assert pods.ends()[0] == 5, pods.output()
    ended = pods.events()[-1]
    assert ended["outcome"] == "node lost"
    assert "-1" in ended["summary"], ended["summary"]  # the hostname of the pod


def _losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"loss (\d\S+)", printed)]
