"""A job that hangs asks NCCL's RAS; a server of the tests speaks in its place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import only_run
from tests.fakes.ras import serving

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = """
import json, os, sys, time, torch, torch.distributed as dist
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.fakes.ras import answer
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
pids = [None] * world
dist.all_gather_object(pids, os.getpid())
if rank == 0:
    called = {{r: {{"AllReduce": 1 - (r == 1)}} for r in range(world)}}
    told = answer(called, pids=dict(enumerate(pids)))
    Path("answer.part").write_text(json.dumps(told))
    os.replace("answer.part", "answer")
if rank == 1:
    time.sleep(600)
dist.all_reduce(torch.ones(2))
"""


@pytest.mark.timeout(120)
def test_what_ras_counts_is_kept_and_is_a_note_where_the_collective_is_nccls(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(TRAIN.format(root=str(Path(__file__).parents[2])))
    with serving(tmp_path / "answer") as server:
        words = ("--nproc-per-node", 3, "--hang-timeout", "3s", "--no-report", "--no-check")
        where = ("--env", f"NCCL_RAS_ADDR={server.address}")
        result = distrun("launch", *words, *where, "train.py", timeout_s=90)
    assert result.returncode == 124, result.stderr
    assert "waits for rank 1" in result.stderr
    assert "RAS" not in result.stderr, "gloo has called it"
    # As on GPUs, where the same record names NCCL:
    for path in (only_run(tmp_path) / "flight").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("gloo:", "nccl:"))
    found = distrun("diagnose", *tmp_path.glob("*.json"), "--json")
    told = "NCCL's RAS agrees: AllReduce not once in rank 1, once in ranks 0,2"
    assert json.loads(found.stdout)["verdict"]["note"] == told
