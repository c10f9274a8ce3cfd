"""What is printed is what is done."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrun.api.launch import prepare, start
from distrun.listen import free_port
from distrun.spec.job import Header, Job
from tests.conftest import SCENARIOS

Run = Callable[..., subprocess.CompletedProcess[str]]
RECIPES = Path(__file__).parents[2] / "recipes"


def last_loss(text: str) -> str:
    return re.findall(r"loss (\d\.\d+)", text)[-1]


@pytest.mark.long
@pytest.mark.timeout(90)
def test_pasting_the_printed_lines_trains_to_the_same_loss_as_the_command(
    distrun: Run, tmp_path: Path
) -> None:
    words = ("--nodes", 2, "--nproc-per-node", 1, RECIPES / "ddp.py", "--steps", 18)
    printed = distrun("launch", "--dry-run", *words).stdout
    lines = [line for line in printed.splitlines() if not line.startswith("#")]
    assert len(lines) == 2
    torchrun = f"{sys.executable} -m torch.distributed.run "
    pasted = [
        subprocess.Popen(
            line.replace(" torchrun ", f" {torchrun}"), shell=True, cwd=tmp_path,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for line in lines
    ]  # fmt: skip
    outputs = [process.communicate(timeout=60) for process in pasted]
    assert [process.returncode for process in pasted] == [0, 0], outputs
    launched = distrun("launch", *words)
    assert launched.returncode == 0, launched.stderr
    assert last_loss(launched.stdout) == last_loss(outputs[0][0])


def test_a_port_lost_between_plan_and_bind_is_picked_anew(tmp_path: Path) -> None:
    import socket

    script = str(SCENARIOS / "all_reduce.py")
    job = Job(script=script, nodes=2, nproc_per_node=1, runs_dir=tmp_path / "runs")
    prepared = prepare(job, {}, Header())
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", prepared.plan.master_port))
        thief.listen()
        events = list(start(prepared).events())
    names = [event.get("event") for event in events]
    notice = next(event for event in events if event.get("event") == "notice")
    assert f"port {prepared.plan.master_port} was taken" in notice["message"]
    assert names.count("attempt_started") == 2
    assert next(e for e in events if e.get("event") == "ended")["exit_code"] == 0


def test_a_named_port_that_is_lost_is_not_swapped(tmp_path: Path) -> None:
    import socket

    script, port = str(SCENARIOS / "all_reduce.py"), free_port()
    job = Job(script=script, nodes=2, nproc_per_node=1, runs_dir=tmp_path, master_port=port)
    prepared = prepare(job, {}, Header())
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", port))
        thief.listen()
        events = list(start(prepared).events())
    ended = next(e for e in events if e.get("event") == "ended")
    assert ended["exit_code"] == 3
    assert f"--master-port {port} was taken" in ended["summary"]


def test_a_hostfile_gives_a_line_for_each_of_its_hosts(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("ada@10.0.0.[1-2]:4 port=2222\r\n# spare\r\n[::5]:4\r\n")
    words = ("--hostfile", "hosts.txt", "--nproc-per-node", 4, "--dry-run", "--explain")
    printed = distrun("launch", *words, SCENARIOS / "all_reduce.py").stdout
    assert [line for line in printed.splitlines() if line.startswith("# node ")] == [
        "# node 0 (ada@10.0.0.1:2222): ranks 0-3 of 12",
        "# node 1 (ada@10.0.0.2:2222): ranks 4-7 of 12",
        "# node 2 (::5): ranks 8-11 of 12",
    ]
    assert re.findall(r"--local-addr=(\S+)", printed)[:3] == ["10.0.0.1", "10.0.0.2", "::5"]
    assert re.search(r"--nnodes=3 +hostfile hosts\.txt ", printed)


def test_a_job_that_is_built_directly_may_name_a_hostfile(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("a\nb slots=2\n")
    job = Job(
        script=str(SCENARIOS / "all_reduce.py"),
        nproc_per_node=1,
        runs_dir=tmp_path,
        hostfile=tmp_path / "hosts.txt",
    )
    prepared = prepare(job, {}, Header(), ask=False)
    assert [node.host for node in prepared.plan.nodes] == ["a", "b"]
