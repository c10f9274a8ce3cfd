"""The launcher at scale, over agents that do nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("fault", "code", "says", "measured"),
    [
        ("none", 143, "stopped by SIGTERM", {"joined_s", "started_s", "stopped_s"}),
        ("slow", 4, "1 of 6 nodes did not join within 20 s: n0003", set()),
        ("silent", 5, "n0003: its agent said nothing for 30 s", {"named_s"}),
        ("killed", 5, "n0003", {"joined_s", "started_s", "named_s", "stopped_s"}),
    ],
)
def test_a_fault_of_one_node_is_answered_as_in_a_real_run(
    distrun: Run, tmp_path: Path, fault: str, code: int, says: str, measured: set[str]
) -> None:
    words = ("--nodes", 6, "--nproc-per-node", 2, "--fault", fault, "--json")
    done = distrun("simulate", *words, timeout_s=80)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["exit_code"] == code and says in found["summary"]
    assert found["met_s"] > 0
    assert all(found[name] > 0 for name in measured)
    assert measured or found["joined_s"] is None
    assert not list(tmp_path.iterdir()), "it leaves nothing"


def test_it_is_told_in_a_few_lines(distrun: Run) -> None:
    done = distrun("simulate", "--nodes", 3)
    head, *lines = done.stdout.splitlines()
    assert lines[0].strip().startswith("torch's rendezvous took ")
    assert head.startswith("3 nodes x 8 ranks = 24 ranks; nothing happens")
    assert [line.split(" after")[0].strip() for line in lines[1:-1]] == [
        "all nodes joined",
        "all ranks started",
        "all processes ended",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--fault", "kiled"), "--fault 'kiled' is unknown"),
        (("--nodes", "5000"), "--nodes 5000 is above the limit of 4096"),
        (("--nodes", "0"), "--nodes"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    distrun: Run, words: tuple[str, ...], says: str
) -> None:
    done = distrun("simulate", *words)
    assert done.returncode == 2 and says in done.stderr
