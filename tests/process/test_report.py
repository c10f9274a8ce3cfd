"""A launch ends with a report and samples its machine; the commands that read what it recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import only_run, wait_until
from tests.process.launched import Launched

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = """
import sys, time
from distrun.train import metrics
steps = int(sys.argv[1])
for step in range(1, steps + 1):
    metrics.log(step, total_steps=steps, loss=1 / step)
    time.sleep(float(sys.argv[2]))
open("trained", "w").close()
"""
ONE = ("launch", "--no-check", "--nproc-per-node", 1)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A script that trains nothing: its arguments are steps and seconds for each."""
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path / "train.py"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


UNEVEN = """
import time, torch, torch.distributed as dist
dist.init_process_group("gloo")
for step in range(60):
    time.sleep(0.15 if dist.get_rank() == 1 else 0.02)
    dist.all_reduce(torch.ones(10))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("nnodes", [1, 3])
def test_a_report_names_the_rank_that_the_others_wait_for(
    distrun: Run, tmp_path: Path, nnodes: int
) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN)
    shape = ("--nodes", nnodes, "--nproc-per-node", 3 // nnodes)
    assert distrun("launch", "--no-check", *shape, "uneven.py").returncode == 0
    assert json.loads(distrun("report", "--json").stdout)["straggler"] == 1
    wait_until((only_run(tmp_path) / "report.html").exists, 20, "the report")
    assert "they wait for rank 1" in (only_run(tmp_path) / "report.html").read_text()


def test_a_run_ends_with_a_report_and_its_numbers_are_read_by_other_commands(
    distrun: Run, train: Path, tmp_path: Path
) -> None:
    done = distrun(*ONE, train, 5, 0)
    assert done.returncode == 0 and "report" not in done.stderr
    run = only_run(tmp_path)
    wait_until((run / "report.html").exists, 20, "the report")
    assert "every rank ended with 0" in (run / "report.html").read_text()

    assert distrun("report").stdout == f"runs/{run.name}/report.html\n"
    told = json.loads(distrun("report", "--json").stdout)
    assert (told["schema"], told["exit_code"]) == ("distrun.report/1", 0)
    distrun("export", "--csv", "run.csv")
    assert len((tmp_path / "run.csv").read_text().splitlines()) == 6
    listed = distrun("ps", "--last", 1).stdout.splitlines()
    assert "█" in listed[1] and "0.2" in listed[1]


def test_no_report_writes_none_and_a_failed_run_has_one(
    distrun: Run, train: Path, tmp_path: Path
) -> None:
    assert distrun(*ONE, "--no-report", train, "x", 0).returncode == 1
    first = only_run(tmp_path)
    assert distrun(*ONE, train, "y", 0).returncode == 1
    (second,) = (path for path in (tmp_path / "runs").iterdir() if path != first)
    wait_until((second / "report.html").exists, 20, "the report")
    assert "ValueError" in (second / "report.html").read_text()
    assert not (first / "report.html").exists()

    compared = distrun("report", first.name, second.name)
    assert compared.returncode == 0 and first.name in compared.stdout
    (page,) = tmp_path.glob("compare-*.html")
    assert second.name in page.read_text()


def test_the_machine_is_sampled_and_the_samples_are_no_steps(
    distrun: Run, train: Path, tmp_path: Path
) -> None:
    words = (*ONE, "--nodes", 2, "--metrics-every", "0.2", "--json", train, 20, 0.1)
    done = distrun(*words)
    assert done.returncode == 0
    run = only_run(tmp_path)
    samples = [record for record in lines(run / "metrics.jsonl") if "system" in record]
    assert samples and {record["node"] for record in samples} == {0}  # both are this machine
    assert samples[0]["system"]["ram_nbytes"] > 0 and "rank" not in samples[0]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"system", "metrics", "ended"} <= {event["event"] for event in told}
    wait_until((run / "report.html").exists, 20, "the report")
    assert "RAM in use" in (run / "report.html").read_text()


def samplers(run: Launched) -> list[int]:
    """Return the pids of the processes that sample for a run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"distrun.probe.sampler" in command and only_run(run.cwd).name.encode() in environ:
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells who lives")
def test_an_agent_that_is_killed_leaves_no_sampler(
    launched: Callable[..., Launched], train: Path
) -> None:
    run = launched(*ONE[1:], "--metrics-every", "0.1", train, 2000, 0.05)
    run.wait_for_event("rank_started")
    wait_until(lambda: samplers(run), 20, "the sampler")
    os.kill(run.pid_of("agent0"), signal.SIGKILL)
    wait_until(lambda: not samplers(run), 20, "its end")
    assert run.end()[0] == 5


GPUS = """
import json
from distrun.probe.gpu_samples import GpuSamples
gpus = GpuSamples()
for _ in range(2):
    print(json.dumps(gpus.sample()))
print(json.dumps(gpus.problem))
"""


def test_gpus_are_sampled_through_nvml(driver: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "LD_LIBRARY_PATH": str(driver), "FAKE_GPUS": "2"}
    words = [sys.executable, "-c", GPUS]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
    first, second, problem = map(json.loads, done.stdout.splitlines())
    names = ("utilisation_percent", "memory_nbytes", "power_w", "temperature_c")
    assert first.keys() == {f"gpu{gpu}_{name}" for gpu in (0, 1) for name in names}
    assert (first, problem) == (second, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "none"), "no run is recorded"),
        (("export", "none", "--csv", "x.csv"), "no run is recorded"),
        (("export",), "no file is named"),
        (("export", "--csv", "."), "it is a directory"),
        (("export", "-o", "a.csv", "-o", "b.csv"), "-o b.csv: a.csv is such a file already"),
        (("report", "-o", "x.pdf"), "the ending names the format"),
        ((*ONE, "--track", "paper", "train.py"), "tensorboard, wandb, mlflow or trackio"),
        ((*ONE, "--metrics-every", "often", "train.py"), "for example 90"),
    ],
)
def test_what_was_typed_wrong_is_told_in_a_sentence(
    distrun: Run, train: Path, words: tuple[str, ...], said: str
) -> None:
    done = distrun(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
