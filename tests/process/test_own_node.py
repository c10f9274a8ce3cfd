"""One launch a node, each started as a platform starts it: together they are one world.

The nodes are two launches on this machine, in a directory each, that know one another only by
the platform's variables.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from distrun.listen import free_port
from tests.conftest import only_run, wait_until
from tests.process.launched import Launched

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(150)
LIMIT_S = 100.0
RECIPE = Path(__file__).parents[2] / "recipes" / "ddp.py"
SUM = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
t = torch.tensor([1.0 + dist.get_rank()])
dist.all_reduce(t)
print("rank", dist.get_rank(), "sum", t.item(), os.environ["TORCHELASTIC_RUN_ID"], flush=True)
dist.destroy_process_group()
"""
FAIL = """
import os, sys, signal, torch, torch.distributed as dist
dist.init_process_group("gloo")
for step in range(1_000_000):
    if step == 50 and dist.get_rank() == 1:
        eval(sys.argv[1])
    dist.all_reduce(torch.ones(1))
    if step == 50:
        open("going", "w").close()
"""
ASLEEP = """
import sys, time, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
if dist.get_rank() == int(sys.argv[1]):
    sys.exit(9)
time.sleep(600)
"""
UNEVEN = """
import os, time, torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
while dist.get_rank() == 1 and not os.path.exists("go"):
    time.sleep(0.02)
dist.destroy_process_group()
"""


def pet(rank: int, port: int, **more: str) -> dict[str, str]:
    """Return what Kubeflow sets on one of two nodes."""
    own = {"PET_NNODES": "2", "PET_NODE_RANK": str(rank), "PET_MASTER_ADDR": "127.0.0.1"}
    return {**own, "PET_MASTER_PORT": str(port), "PET_NPROC_PER_NODE": "1", **more}


def skypilot(rank: int) -> dict[str, str]:
    own = {"SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1", "SKYPILOT_NUM_NODES": "2"}
    return {**own, "SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_TASK_ID": "sky-1_c_1"}


def dstack(rank: int) -> dict[str, str]:
    own = {"DSTACK_NODES_NUM": "2", "DSTACK_MASTER_NODE_IP": "127.0.0.1", "DSTACK_RUN_ID": "7d0e"}
    return {**own, "DSTACK_NODE_RANK": str(rank), "DSTACK_NODES_IPS": "127.0.0.1\n127.0.0.1"}


def open_mpi(rank: int) -> dict[str, str]:
    own = {
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
        "MASTER_ADDR": "localhost",
    }
    return {**own, "OMPI_COMM_WORLD_RANK": str(rank), "PMIX_NAMESPACE": "prterun-1"}


def indexed_job(rank: int) -> dict[str, str]:
    return {"JOB_COMPLETION_INDEX": str(rank), "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture
def start(command: list[str], tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Start one node in a directory of its own, with a script there."""
    runs: list[Launched] = []

    def node(rank: int, environ: Mapping[str, str], script: str, *words: object) -> Launched:
        directory = tmp_path / f"node{rank}"
        directory.mkdir()
        (directory / "train.py").write_text(script)
        runs.append(Launched(command, directory, *words, environ=environ))
        return runs[-1]

    yield node
    for run in runs:
        run.process.kill()
        run.process.communicate()


def ended(launched: Launched) -> tuple[int, str, dict[str, Any]]:
    """Return exit code, all that was printed, and the record of a node."""
    out, errors = launched.process.communicate(timeout=LIMIT_S)
    record = json.loads((only_run(launched.cwd) / "run.json").read_text())
    return launched.process.returncode, out + errors, record


def losses(directory: Path) -> list[float]:
    lines = (only_run(directory) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if '"loss"' in line]


@pytest.mark.long
def test_two_launches_train_to_the_loss_of_one(
    start: Callable[..., Launched],
    distrun: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more threads add up in another order
    port, words = free_port(), ["--steps", "12", "--log-every", "1", "--no-save"]
    both = [start(rank, pet(rank, port), "", RECIPE, *words) for rank in (0, 1)]
    for rank, launched in enumerate(both):
        code, said, record = ended(launched)
        assert code == 0, said
        line = f"node {rank} of 2 (PET_NODE_RANK); each node supervises and records itself"
        assert line in said
        assert record["plan"]["own_node"] == rank
        logs = {p.parent.name for p in only_run(launched.cwd).glob("logs/*/rank*.log")}
        assert logs == {f"node{rank}"}
        shown = distrun("show", cwd=launched.cwd)
        assert f"2 nodes × 1; of these, node {rank} is recorded here" in shown.stdout
    one = distrun("launch", "--nodes", "2", "--nproc-per-node", "1", RECIPE, *words)
    assert one.returncode == 0, one.stderr
    assert losses(both[0].cwd) == losses(tmp_path) and losses(tmp_path)


@pytest.mark.parametrize(
    ("platform", "words", "run_id"),
    [
        (skypilot, [], "sky-1_c_1"),
        (dstack, [], "7d0e"),
        (open_mpi, [], "prterun-1"),
        (indexed_job, ["--nodes", "2"], "127.0.0.1:"),
    ],
)
def test_the_nodes_of_each_platform_are_one_world(
    platform: Callable[[int], dict[str, str]],
    words: list[str],
    run_id: str,
    start: Callable[..., Launched],
) -> None:
    flags = [*words, "--nproc-per-node", "1", "--master-port", free_port()]
    both = [start(rank, platform(rank), SUM, *flags, "train.py") for rank in (0, 1)]
    for rank, launched in enumerate(both):
        code, said, record = ended(launched)
        assert code == 0, said
        assert f"rank {rank} sum 3.0 {run_id}" in said
        assert record["plan"]["own_node"] == rank


@pytest.mark.parametrize(
    ("how", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_when_a_rank_fails_the_other_node_ends_and_names_the_cause_as_elsewhere(
    how: str, code: int, start: Callable[..., Launched]
) -> None:
    port = free_port()
    both = [start(r, pet(r, port), FAIL, "train.py", how) for r in (0, 1)]
    assert ended(both[1])[0] == code
    other, said, record = ended(both[0])
    assert other == 5 and record["outcome"] == "node lost", said
    assert "NODE LOST: another node has failed: rank 0 on node0 lost a peer" in said or (
        "NODE LOST: node1 has failed" in said
    )
    assert "hint: the cause is on another node" in said


@pytest.mark.thorough  # as one in a collective
@pytest.mark.parametrize("failing", [0, 1])
def test_a_node_outside_of_a_collective_is_told_that_another_has_failed(
    failing: int, start: Callable[..., Launched]
) -> None:
    port = free_port()
    both = [start(r, pet(r, port), ASLEEP, "train.py", failing) for r in (0, 1)]
    assert ended(both[failing])[0] == 9
    code, said, record = ended(both[1 - failing])
    assert (code, record["outcome"]) == (5, "node lost"), said
    assert f"node{failing} has " in said and "hint: the cause is on another node" in said


def test_when_a_launcher_is_killed_the_other_node_ends(start: Callable[..., Launched]) -> None:
    port = free_port()
    both = [start(r, pet(r, port), FAIL, "train.py", "None") for r in (0, 1)]
    for launched in both:
        wait_until((launched.cwd / "going").exists, LIMIT_S)
    both[1].process.kill()
    code, said, _ = ended(both[0])
    assert code == 5, said


def test_a_node_whose_peers_never_come_ends_with_4(start: Callable[..., Launched]) -> None:
    flags = ["--join-timeout", "25s", "train.py"]
    both = [start(rank, pet(rank, free_port()), SUM, *flags) for rank in (0, 1)]
    (head, head_said, record), (other, other_said, _) = [ended(launched) for launched in both]
    assert (head, other, record["outcome"]) == (4, 4, "nodes missing"), head_said + other_said
    assert "the other node, 1, did not come to 127.0.0.1 port" in head_said
    assert "joined: node0 · missing: the other nodes" in head_said
    assert "node0 was not to be reached at 127.0.0.1 port" in other_said


def test_a_node_that_is_done_waits_for_the_others(start: Callable[..., Launched]) -> None:
    port = free_port()
    both = [start(rank, pet(rank, port), UNEVEN, "train.py") for rank in (0, 1)]
    both[0].wait_for_words("the ranks of this node have ended with 0; those of others have not")
    assert both[0].process.poll() is None
    (both[1].cwd / "go").touch()
    assert [ended(launched)[0] for launched in both] == [0, 0]


@pytest.mark.thorough  # as one that is done
def test_a_node_that_waits_for_the_others_can_be_stopped(start: Callable[..., Launched]) -> None:
    port = free_port()
    both = [start(rank, pet(rank, port), UNEVEN, "train.py") for rank in (0, 1)]
    both[0].wait_for_words("the ranks of this node have ended with 0; those of others have not")
    both[0].process.terminate()
    code, said, _ = ended(both[0])
    assert code == 143 and "every rank ended with 0 by itself" in said
    (both[1].cwd / "go").touch()
    ended(both[1])


def test_a_printed_line_under_torchrun_meets_a_node_under_distrun(
    start: Callable[..., Launched], command: list[str], tmp_path: Path
) -> None:
    environ = pet(1, free_port())
    there = tmp_path / "under_torchrun"
    there.mkdir()
    (there / "train.py").write_text(SUM)
    printed = subprocess.run(
        [*command, "launch", "--dry-run", "train.py"],
        cwd=there,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    ).stdout
    lines = printed.splitlines()
    assert "#   node rank 1 (PET_NODE_RANK)" in lines
    assert "# node 1 of 2 (PET_NODE_RANK); each node supervises and records itself" in lines
    (line,) = [line for line in lines if not line.startswith("#")]
    head = start(0, pet(0, int(environ["PET_MASTER_PORT"])), SUM, "train.py")
    words = shlex.split(line)
    words[words.index("torchrun") : words.index("torchrun") + 1] = [
        sys.executable,
        "-m",
        "torch.distributed.run",
    ]
    under_torchrun = subprocess.run(
        words, cwd=there, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert under_torchrun.returncode == 0, under_torchrun.stderr
    assert "rank 1 sum 3.0" in under_torchrun.stdout
    assert ended(head)[0] == 0


@pytest.mark.parametrize(
    ("environ", "words", "code", "said"),
    [
        ({"PET_NNODES": "abc"}, [], 2, "PET_NNODES='abc' is not a number of nodes"),
        ({"PET_NNODES": "1:4"}, [], 2, "PET_NNODES=1:4 is elastic"),
        ({"PET_NODE_RANK": "2"}, [], 2, "PET_NODE_RANK=2 is not below 2"),
        ({"PET_NPROC_PER_NODE": "x"}, [], 2, "PET_NPROC_PER_NODE='x'"),
        ({}, ["--nodes", "3"], 2, "--nodes 3 contradicts PET_NNODES=2"),
        ({}, ["--max-restarts", "1"], 2, "--max-restarts 1 cannot be kept"),
        (
            {"PET_MASTER_ADDR": "nobody.invalid"},
            ["--join-timeout", "1s"],
            3,
            "PET_MASTER_ADDR='nobody.invalid' did not resolve within 1 s",
        ),
    ],
)
def test_nothing_is_started_on_wrong_variables(
    environ: dict[str, str], words: list[str], code: int, said: str, distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("")
    env = {**os.environ, **pet(1, 29500), **environ}
    ended = distrun("launch", *words, "train.py", env=env)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr and "hint:" in ended.stderr
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("environ", "words"),
    [({"PET_NNODES": "1"}, []), ({}, ["--on", "local"]), ({"PET_NNODES": "x"}, ["--on", "local"])],
)
def test_one_node_or_on_local_is_a_run_of_this_machine(
    environ: dict[str, str], words: list[str], distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print('trained')")
    flags = [*words, "--nproc-per-node", "1"]
    env = {**os.environ, **pet(1, 29500), **environ}
    ended = distrun("launch", *flags, "train.py", env=env)
    assert (ended.returncode, ended.stdout) == (0, "trained\n"), ended.stderr


OUTER = {"TORCHELASTIC_RUN_ID": "run7", "RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        (OUTER, 2),
        ({**OUTER, "WORLD_SIZE": "1", "RANK": "0"}, 0),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 0),  # PyTorchJob, of its pods
    ],
)
def test_a_rank_of_a_launch_does_not_launch(
    environ: dict[str, str], code: int, distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("")
    ended = distrun("launch", "--dry-run", "train.py", env={**os.environ, **environ})
    assert ended.returncode == code, ended.stderr
    if code:
        assert "this is rank 1 of 2 of a launch that runs already" in ended.stderr
