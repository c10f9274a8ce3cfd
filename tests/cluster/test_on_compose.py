"""`distrun launch --on compose` with podman: one run, recorded here, and nothing left after it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.containers import Podman, limited
from tests.cluster.launches import Started
from tests.conftest import only_run

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]  # the first one may build the image

_SCRIPT = """
import os, signal, sys, time
import torch, torch.distributed as dist

def save(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
print("begun", sys.argv[1:], os.environ.get("API_KEY"), flush=True)
if sys.argv[1] == "raise" and dist.get_rank() == 1:
    raise ValueError("no such sample: 7")
if sys.argv[1] == "wait":
    time.sleep(600)
dist.destroy_process_group()
"""


class Launches:
    """Launches on containers, from a directory of their own.

    Args:
        podman: Podman.
        image: What the containers are made from.
        directory: Where the script is.
    """

    def __init__(self, podman: Podman, image: str, directory: Path) -> None:
        self.podman = podman
        self.directory = directory
        self._image = image
        here = Path(sys.executable).parent
        self._environ = {**podman.environ, "PATH": f"{here}:{os.environ['PATH']}"}
        (directory / "train.py").write_text(_SCRIPT)

    def start(self, *words: str) -> Started:
        """Start a launch of two nodes."""
        flags = ("--on=compose", "--nodes=2", f"--image={self._image}", "--nproc-per-node=1")
        argv = [*limited(), sys.executable, "-m", "distrun", "launch", *flags, *words]
        return Started(argv, self._environ, self.directory)

    def record(self) -> dict[str, Any]:
        """Return the record of its only run."""
        return dict(json.loads((only_run(self.directory) / "run.json").read_text()))

    def left(self) -> str:
        """Return the containers of its run that there are."""
        project = self.record()["job"]["project"]
        words = ("ps", "--all", "--quiet", "--filter", f"name={project}")
        return self.podman(*words).stdout.strip()


@pytest.fixture
def launches(podman_of_session: tuple[Podman, str], tmp_path: Path) -> Iterator[Launches]:
    """Launches on containers; what they leave is removed."""
    launches = Launches(*podman_of_session, tmp_path)
    yield launches
    if list(tmp_path.glob("runs/*/run.json")) and (left := launches.left()):
        launches.podman("rm", "--force", "--time=0", *left.split())


def test_a_run_in_two_containers_is_recorded_here_and_nothing_is_left(launches: Launches) -> None:
    (launches.directory / "secret.env").write_text("API_KEY='pa$$ word'\n")
    launch = launches.start("--env-file=secret.env", "train.py", "end", "$HOME", "a b")
    assert launch.ends() == 0, launch.printed
    assert launch.printed.count("begun ['end', '$HOME', 'a b'] pa$$ word") == 2
    record = launches.record()
    assert (record["outcome"], record["exit_code"], record["nnodes"]) == ("succeeded", 0, 2)
    logs = sorted(only_run(launches.directory).glob("logs/node*/rank*.log"))
    assert ["begun" in log.read_text() for log in logs] == [True, True]
    assert not launches.left()
    assert "pa$$" not in (only_run(launches.directory) / "compose.yaml").read_text()


def test_the_rank_that_failed_is_named_and_its_exit_code_is_the_run_s(launches: Launches) -> None:
    launch = launches.start("train.py", "raise")
    assert launch.ends() == 1, launch.printed
    assert "no such sample: 7" in launch.printed
    verdict = json.loads((only_run(launches.directory) / "verdict.json").read_text())
    assert (verdict["rank"], verdict["host"]) == (1, "node1")
    assert not launches.left()


def test_a_launcher_that_is_terminated_lets_the_ranks_save(launches: Launches) -> None:
    launch = launches.start("train.py", "wait")
    launch.until("begun", 2)
    launch.child.send_signal(signal.SIGTERM)
    assert launch.ends() == 143, launch.printed
    assert launch.printed.count("saved") == 2
    assert not launches.left()


def test_an_image_that_cannot_be_had_is_named_and_no_run_is_made(launches: Launches) -> None:
    launch = launches.start("--image=localhost/no-such-image:1", "train.py", "end")
    assert launch.ends() == 3, launch.printed
    assert "the image 'localhost/no-such-image:1' is not on this machine" in launch.printed
    assert not list(launches.directory.glob("runs/*"))
