"""The image of docker/Dockerfile, run as strict clusters run it, by podman."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]  # the first one may build the image

_SIZE_LIMIT_NBYTES = 1_100_000_000
_STRICT = (
    *("--user=4321:0", "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:exec"),
    *("--tmpfs=/workspace/runs:mode=1777", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
)
_SAVES = """
import signal, sys, time
import torch, torch.distributed as dist

dist.init_process_group("gloo")
def save(*_):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
dist.barrier()
print("begun", flush=True)
time.sleep(600)
"""


def test_the_image_is_small_and_does_not_run_as_root(lab: Lab) -> None:
    found = lab.podman.inspect(lab.image)
    assert found["Size"] < _SIZE_LIMIT_NBYTES
    assert found["Config"]["User"] == "10001:0"
    assert found["Config"]["Labels"]["org.opencontainers.image.title"] == "distrun"
    assert found["Config"]["Entrypoint"] == ["/usr/bin/tini", "--"]


def test_the_check_finds_it_healthy(lab: Lab) -> None:
    done = lab.run("distrun", "check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("without", [(), ("env", "-u", "HOME", "-u", "USER")])
def test_it_trains_as_any_uid_on_a_read_only_root_without_names(
    lab: Lab, without: tuple[str, ...]
) -> None:
    """No passwd entry, no resolver, no entry of the hostname, and no HOME."""
    train = (*without, "distrun", "launch", "--nproc-per-node=2", "recipes/ddp.py")
    done = lab.run(*train, options=(*_STRICT, "--network=none", "--no-hosts"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy" in done.stdout


def test_a_run_that_cannot_be_recorded_is_refused_in_a_sentence(lab: Lab) -> None:
    options = [word for word in _STRICT if "runs" not in word]
    done = lab.run("distrun", "launch", "recipes/ddp.py", options=options)
    assert done.returncode == 2, done.stderr
    assert "--runs-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_docker_stop_leaves_the_ranks_time_to_save(lab: Lab) -> None:
    """The image's grace is below the 10 s after which `stop` kills."""
    name = lab.start(
        *(
            "sh",
            "-c",
            'printf %s "$0" > /tmp/t.py; exec distrun launch --nproc-per-node=2 /tmp/t.py',
        ),
        _SAVES,
        options=_STRICT,
    )
    lab.until(name, "begun")
    lab.podman("stop", name)
    assert lab.ends(name) == 143, lab.logs(name)
    assert lab.logs(name).count("saved") == 2
    explained = lab.run("distrun", "launch", "--explain", "recipes/ddp.py").stdout
    assert "grace=8 s" in explained
    assert "variable DISTRUN_GRACE" in explained


def test_pid_1_reaps_what_others_leave_behind(lab: Lab) -> None:
    orphan = (
        "(sleep 0 & echo $!) > /tmp/pid; while [ -e /proc/$(cat /tmp/pid) ]; do sleep 0.1; done"
    )
    done = lab.run("sh", "-c", f"{orphan}; cat /proc/1/comm")
    assert (done.returncode, done.stdout.strip()) == (0, "tini"), done.stderr


def test_the_limits_of_a_container_are_those_that_are_judged(lab: Lab) -> None:
    limits = ("--memory=700m", "--cpus=1", "--pids-limit=60")
    done = lab.run("distrun", "check", "--json", "--nproc-per-node=4", options=limits)
    found = _findings(json.loads(done.stdout))
    assert "60" in found["host.nproc"]["observed"]
    assert "--pids-limit" in found["host.nproc"]["fix"]
    assert "the container's limit is 700 MiB" in found["host.memory"]["observed"]
    assert "1 of " in found["host.cpu"]["observed"]
    # podman and Docker give it 64 MiB unless they are told otherwise
    assert "MiB free" in found["host.shm"]["observed"]
    assert "--shm-size" in found["host.shm"]["fix"]
    planned = lab.run("distrun", "launch", "--dry-run", "recipes/ddp.py", options=limits).stdout
    assert "--nproc-per-node 1" in planned or "--nproc-per-node=1" in planned


def _findings(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in report["findings"]}
