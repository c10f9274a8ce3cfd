"""What `--dry-run --explain` prints, whole, for a machine that is always the same.

A golden file is changed by hand, on purpose; nothing writes one.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from distrun.plan.model import LaunchPlan
from distrun.plan.show import dry_run, explain
from tests.unit.machines import machine, planned

GOLDEN = Path(__file__).parents[2] / "golden"
TWO_HOSTS = machine(addresses={"a": "10.0.0.1", "b": "10.0.0.2"}, cores=2)
PLANS = {
    "one_node": planned(machine(cores=2)),
    "two_emulated_nodes": planned(
        machine(cores=4), nodes=2, strategy="ddp", script="recipes/ddp.py", args=("--lr", "0.1")
    ),
    "two_nodes_of_gpus": planned(machine(8), nodes=2, max_restarts=3, time_limit="1h"),
    "hosts": planned(TWO_HOSTS, hosts="a,b", nproc_per_node=8, master_port=12345),
    "secrets": planned(
        env={"HF_TOKEN": "hunter2", "GREETING": "hello world"},
        secret_env={"DB_URL": "hunter3"},
        nproc_per_node=1,
    ),
    "module": planned(
        script="pkg.train", module=True, args=("--name", "it's $HOME", ""), nproc_per_node=1
    ),
    "hostile_name": planned(
        script="my 'tr$ain`\n.py", nproc_per_node=1, cold_reason="it sets A before it imports torch"
    ),
}


@pytest.mark.parametrize("name", sorted(PLANS))
def test_the_dry_run_is_what_its_golden_file_says(name: str) -> None:
    plan: LaunchPlan = PLANS[name]
    printed = "\n".join([*dry_run(plan), *explain(plan.settings)]) + "\n"
    golden = (GOLDEN / f"dry_run_{name}.txt").read_text(encoding="utf-8")
    diff = difflib.unified_diff(
        golden.splitlines(True), printed.splitlines(True), "golden file", "printed now"
    )
    assert printed == golden, "".join(diff)


def test_no_golden_file_is_left_without_its_plan() -> None:
    assert {p.stem.removeprefix("dry_run_") for p in GOLDEN.glob("dry_run_*")} == set(PLANS)
