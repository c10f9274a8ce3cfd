"""What the recorder of a rank needs of torch: its flight recorder, and the names of the groups."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
from datetime import timedelta
import torch, torch.distributed as dist
before = set(sys.modules)
from distrun import torch_private
new = sorted(name for name in set(sys.modules) - before if not name.startswith("distrun"))
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
group = dist.new_group([0], group_desc="mine", timeout=timedelta(seconds=7))
dist.all_reduce(torch.ones(3, 4), group=group)
while b'"retired":false' in torch_private.flight_record():  # a thread of gloo notes the end
    pass
print(json.dumps({
    "modules": new,
    "groups": torch_private.known_groups(),
    "name": torch_private.group_names()[group],
    "timeouts": torch_private.group_timeouts(),
    "record": json.loads(torch_private.flight_record()),
}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a rank of two groups finds, with a record of up to 200 collectives."""
    store: Path = tmp_path_factory.mktemp("rank") / "store"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(store)],
        env={"TORCH_FR_BUFFER_SIZE": "200", "PATH": "/usr/bin:/bin", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_torch_private_known_groups_and_torch_private_group_names(told: dict[str, Any]) -> None:
    world, mine = told["groups"]
    assert world[1:] == ["default_pg", {"0": 0}]
    assert mine == [told["name"], "mine", {"0": 0}]


def test_torch_private_group_timeouts(told: dict[str, Any]) -> None:
    assert told["timeouts"] == {told["groups"][0][0]: 1800.0, told["name"]: 7.0}


def test_torch_private_flight_record_counts_the_collectives_of_each_group(
    told: dict[str, Any],
) -> None:
    counted = told["record"]["pg_status"][told["name"]]
    assert counted["last_enqueued_collective"] == counted["last_completed_collective"] == "1"


def test_torch_private_flight_record_tells_each_collective(told: dict[str, Any]) -> None:
    (entry,) = told["record"]["entries"]
    assert entry["profiling_name"] == "gloo:all_reduce"
    assert entry["process_group"] == [told["name"], "mine"]
    assert (entry["collective_seq_id"], entry["input_sizes"]) == (1, [[3, 4]])
    assert entry["retired"] is True


def test_a_rank_that_has_torch_gets_no_other_module_from_it(told: dict[str, Any]) -> None:
    assert told["modules"] == []
