"""What the check of a suspected node tells."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from distrun.api import suspect
from distrun.api.suspect import checked
from tests.unit.checks.bases import h100
from tests.unit.checks.cases import NODE

HEALTHY = NODE[0]
BROKEN = replace(
    HEALTHY,
    nvml=replace(HEALTHY.nvml, gpus=(replace(h100(0), ecc_volatile_uncorrected=4),)),
)


def test_a_gpu_fault_is_told_with_its_rule_and_its_gpu() -> None:
    found = checked(BROKEN, 1)
    assert any("gpu.ecc.uncorrected: GPU 0" in told for told in found["failed"]), found


def test_a_healthy_node_has_nothing_that_fails() -> None:
    assert checked(HEALTHY, 8)["failed"] == []


def ask(probe: list[str]) -> dict[str, list[str]]:
    order = {"name": "n1", "probe": probe, "bootstrap": False, "nproc_per_node": 1}
    done = subprocess.run(
        [sys.executable, "-I", suspect.__file__, json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_node_whose_probe_does_not_start_is_told_as_not_reached() -> None:
    (told,) = ask(["sh", "-c", "echo 'ssh: connect to host n1: No route to host' >&2; exit 255"])[
        "failed"
    ]
    assert "No route to host" in told


def test_what_the_probe_says_is_judged(tmp_path: Path) -> None:
    said = tmp_path / "snapshot"
    said.write_text('{"greeting": "distrun"}\n' + json.dumps(asdict(BROKEN)) + "\n")
    found = ask(["sh", "-c", f"cat {shlex.quote(str(said))}; cat"])
    assert any("gpu.ecc.uncorrected" in told for told in found["failed"]), found
