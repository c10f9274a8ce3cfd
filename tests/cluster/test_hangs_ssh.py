"""A job that hangs over two hosts behind sshd: who is waited for is named with its host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Hosts
from tests.cluster.launches import launched, nothing_is_left

HANG = """
import time
import torch, torch.distributed as dist

dist.init_process_group("gloo")
for step in range(9):
    if step == 3 and dist.get_rank() == 3:
        time.sleep(600)
    dist.all_reduce(torch.ones(4))
"""
WATCHED = ("--hosts", "n01,n02", "--hang-timeout", "5", "--nproc-per-node")
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def test_the_rank_that_all_wait_for_is_named_with_its_host_and_all_have_told(
    hosts: Hosts, tmp_path: Path
) -> None:
    (tmp_path / "hang.py").write_text(HANG)
    with launched(hosts, tmp_path, *WATCHED, "2", "hang.py") as it:
        assert it.ends() == 124, it.printed
    assert "waits for rank 3: 3 of 4 ranks called it at hang.py:9 (all_reduce)" in it.printed
    assert "rank 3 on n02 is in time.sleep at hang.py:8" in it.printed
    (run,) = (tmp_path / "runs").iterdir()
    verdict: dict[str, Any] = json.loads((run / "verdict.json").read_text())["hang"]
    assert (verdict["culprits"], verdict["op"]) == ([3], "all_reduce")
    for name in ("stacks/rank{}.txt", "flight/rank{}.json"):
        assert all((run / name.format(rank)).exists() for rank in range(4))
    nothing_is_left(hosts)
    command = [sys.executable, "-m", "distrun", "diagnose", "--json"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert told.returncode == 1 and json.loads(told.stdout)["verdict"] == verdict


@pytest.mark.thorough  # a minute of waiting; test_launch_ssh has a cable that is out for 15 s
def test_a_host_that_does_not_answer_is_told_and_ends_nothing_if_it_comes_back(
    hosts: Hosts, tmp_path: Path
) -> None:
    with launched(hosts, tmp_path, *WATCHED, "1", "train.py", "talk") as launch:
        launch.until("begun", 2)
        hosts.cut("n02")
        launch.until("rank 1 on n02 is on a node that does not answer")
        hosts.mend("n02")
        assert launch.ends() == 0, launch.printed
    nothing_is_left(hosts)
