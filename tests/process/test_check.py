"""`distrun check` on this machine and on GPUs of our own: what it prints, writes and exits with."""

from __future__ import annotations

import getpass
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import pytest

from distrun.checks.registry import RULES
from distrun.probe.snapshot import Node
from distrun.spec.snapshot import read_snapshots

Run = Callable[..., subprocess.CompletedProcess[str]]
Machine = Callable[..., Mapping[str, str]]
SNAPSHOTS = Path(__file__).parents[1] / "snapshots"


def report_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what --json printed."""
    assert not [line for line in result.stderr.splitlines() if "settings from" not in line]
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def found(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return id -> severity of what --json found, the worst of each id."""
    worst = ("SKIP", "INFO", "WARN", "FAIL")
    severities: dict[str, str] = {}
    for finding in report_of(result)["findings"]:
        both = (finding["severity"], severities.get(finding["id"], "SKIP"))
        severities[finding["id"]] = max(both, key=worst.index)
    return severities


# --- this machine ------------------------------------------------------------------------


def test_a_machine_without_a_gpu_is_told_so_in_one_line_and_the_rest_is_checked(
    distrun: Run,
) -> None:
    result = distrun("check", "--json")
    report = report_of(result)
    (node,) = report["nodes"]
    if node["nvml"]["problem_kind"] != "absent":
        pytest.skip("this machine has a driver")
    screen = distrun("check").stdout
    assert screen.count("GPU") == screen.count("GPUs are not checked") == 1
    assert (report["exit_code"], result.returncode, report["schema"]) == (0, 0, 1)
    assert node["host"]["kernel"] == os.uname().release
    assert node["software"]["torch"] in screen
    assert report["job"]["uses_gpus"] is False


def test_it_takes_well_under_two_seconds_of_this_machine(distrun: Run) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    distrun("check")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # the clock says more of the neighbours
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_hosts_of_a_config_file_are_left_alone_by_a_look_at_this_machine(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.distrun]\nhosts = ['no-such-host.invalid']\n")
    result = distrun("check", "--on", "local", "--json")
    assert [node["name"] for node in report_of(result)["nodes"]] == ["this machine"]


def test_torch_is_read_and_never_imported(distrun: Run, tmp_path: Path) -> None:
    torch = tmp_path / "site" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise SystemExit('imported')")
    (torch / "version.py").write_text("__version__ = '9.8.7+cpu'\ncuda = None\n")
    paths = [str(torch.parent), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    assert "9.8.7+cpu" in distrun("check", env=environ).stdout


def test_what_is_saved_is_judged_as_it_was(distrun: Run, tmp_path: Path) -> None:
    saved = report_of(distrun("check", "--json", "--save", "a b.json"))
    (node,) = read_snapshots(tmp_path / "a b.json", Node)
    assert node.name == "this machine"
    again = report_of(distrun("check", "--json", "--from", "a b.json"))
    assert again == saved


def test_several_recorded_files_are_nodes_side_by_side(distrun: Run) -> None:
    one, other = SNAPSHOTS / "healthy_8xh100.json", SNAPSHOTS / "one_lost_gpu.json"
    for words in (("--from", one, "--from", other), ("--from", one, other)):
        result = distrun("check", "--json", *words)
        assert result.returncode == 1
        assert len(report_of(result)["nodes"]) == 2
        assert found(result)["nodes.gpu.count"] == "FAIL"


def test_machines_that_were_saved_one_by_one_are_called_by_their_own_names(
    distrun: Run, tmp_path: Path
) -> None:
    saved = json.loads((SNAPSHOTS / "vm_without_nvml.json").read_text())
    (node,) = saved if isinstance(saved, list) else [saved]
    for number in (1, 2):
        node["name"], node["host"]["hostname"] = "this machine", f"box{number}"
        node["host"]["kernel"] = f"6.{number}"
        (tmp_path / f"s{number}.json").write_text(json.dumps(node))
    screen = distrun("check", "--from", "s1.json", "s2.json").stdout
    assert "box1 runs 6.1; box2 runs 6.2" in screen.replace("kernel ", "")
    assert "this machine" not in screen


def test_limits_and_ignored_rules_come_from_the_config(distrun: Run, tmp_path: Path) -> None:
    healthy = ("check", "--json", "--from", SNAPSHOTS / "healthy_8xh100.json")
    assert found(distrun(*healthy)) == {}
    config = tmp_path / "pyproject.toml"
    config.write_text("[tool.distrun.check]\ntemperature-margin-c = 80\ngpu_used_warn_nbytes = 1\n")
    result = distrun(*healthy)
    assert (found(result)["gpu.temperature"], result.returncode) == ("WARN", 0)
    assert distrun(*healthy, "--strict").returncode == 1
    config.write_text(config.read_text() + 'ignore = ["gpu.temperature"]\n')
    assert "gpu.temperature" not in found(distrun(*healthy))
    config.write_text(
        "[tool.distrun]\nstrict = true\n[tool.distrun.check]\ntemperature-margin-c=80\n"
    )
    assert distrun(*healthy).returncode == 1
    assert distrun(*healthy, "--ignore", "gpu.*").returncode == 0


def test_the_job_that_is_judged_for_is_the_one_of_flags_and_config(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.distrun]\nnproc-per-node = 16\n")
    words = ("check", "--json", "--from", SNAPSHOTS / "healthy_8xh100.json")
    assert found(distrun(*words))["gpu.count"] == "FAIL"
    fewer = distrun(*words, "--nproc-per-node", "4", "--master-port", "1234")
    assert report_of(fewer)["job"] == {
        "nproc_per_node": 4,
        "nnodes": 1,
        "uses_gpus": True,
        "master_port": 1234,
    }
    assert report_of(distrun(*words, "--nproc-per-node", "cpu"))["job"]["uses_gpus"] is False


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_port_that_somebody_has_fails(distrun: Run, address: str) -> None:
    with socket.create_server((address, 0)) as listener:
        port = str(listener.getsockname()[1])
        result = distrun("check", "--json", "--master-port", port)
        assert (found(result)["host.port"], result.returncode) == ("FAIL", 1)
    assert "host.port" not in found(distrun("check", "--json", "--master-port", port))


def test_emulated_nodes_are_one_snapshot_and_a_line_says_so(distrun: Run) -> None:
    result = distrun("check", "--nodes", "3", "--nproc-per-node", "2", "--json")
    assert "3 nodes are emulated on this machine: one snapshot" in result.stderr
    report = json.loads(result.stdout)
    assert (len(report["nodes"]), report["job"]["nproc_per_node"]) == (1, 6)


def test_nodes_of_the_job_are_not_emulated_on_a_recorded_one(distrun: Run) -> None:
    result = distrun("check", "--json", "--nodes", "4", "--from", SNAPSHOTS / "healthy_8xh100.json")
    assert (report_of(result)["job"]["nproc_per_node"], result.returncode) == (8, 0)


# --- files and texts for others ----------------------------------------------------------


def test_junit_has_a_test_for_each_rule_and_a_failure_for_each_finding(
    distrun: Run, tmp_path: Path
) -> None:
    lost = SNAPSHOTS / "one_lost_gpu.json"
    failed = found(distrun("check", "--json", "--from", lost))
    distrun("check", "--from", lost, "-o", "j.xml", "-o", "all.json", "-o", "r.md")
    cases = list(xml.parse(tmp_path / "j.xml").getroot().iter("testcase"))
    assert {case.get("classname") for case in cases} == {rule.id for rule in RULES}
    with_failure = {case.get("classname") for case in cases if case.find("failure") is not None}
    assert with_failure == {id for id, severity in failed.items() if severity == "FAIL"} != set()
    (suite,) = xml.parse(tmp_path / "j.xml").getroot()
    assert int(suite.get("tests", 0)) == len(cases)
    assert int(suite.get("failures", 0)) == len([c for c in cases if c.find("failure") is not None])
    assert {f["id"] for f in json.loads((tmp_path / "all.json").read_text())["findings"]} == {
        *failed
    }
    assert (tmp_path / "r.md").read_text() == distrun("check", "--from", lost, "--report").stdout


def test_the_report_for_an_issue_names_nobody_and_holds_no_secret(distrun: Run) -> None:
    secrets = dict.fromkeys(("NCCL_TOKEN", "HF_TOKEN", "TORCH_SECRET", "AWS_KEY"), "hunter2")
    environ = {
        **os.environ,
        **secrets,
        "NCCL_TOPO_FILE": "/home/ada/topo.xml",
        "NCCL_DEBUG": "WARN",
    }
    result = distrun("check", "--report", env=environ)
    assert result.returncode == 0, result.stderr
    assert "NCCL_DEBUG=WARN" in result.stdout
    assert "NCCL_TOPO_FILE=***/topo.xml" in result.stdout
    for private in ("hunter2", "ada", "this machine", "HF_TOKEN"):
        assert private not in result.stdout
    hostname = socket.gethostname()
    assert f" {hostname} " not in result.stdout
    assert f"/{getpass.getuser()}/" not in result.stdout
    assert "| node0 |" in result.stdout


def test_a_rule_is_explained_with_its_limits_and_none_is_forgotten(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.distrun.check]\nshm-warn-nbytes = 5\n")
    shm = distrun("check", "--explain", "host.shm").stdout
    assert shm.startswith("host.shm: ")
    assert "shm-warn-nbytes = 5, by default 1073741824" in shm
    for part in ("why", "limit", "fix", "source", "when"):
        assert f"\n  {part} " in shm
    listed = distrun("check", "--explain", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [rule.id for rule in RULES]
    whole = distrun("check", "--explain", "all").stdout
    assert all(f"{rule.id}: {rule.title}" in whole for rule in RULES)
    assert "host.shm" not in distrun("check", "--explain", "gpu.*").stdout


# --- GPUs --------------------------------------------------------------------------------


def test_gpus_are_shown_and_one_with_a_fault_fails(distrun: Run, machine: Machine) -> None:
    environ = machine(FAKE_GPUS=8, FAKE_ECC_VOLATILE="3:2", FAKE_NVLINKS=18, FAKE_SWITCH=1)
    result = distrun("check", env=environ)
    assert result.returncode == 1
    assert len([line for line in result.stdout.splitlines() if " Fake 80GB " in line]) == 8
    assert "GPU7  NV18  NV18  NV18  NV18  NV18  NV18  NV18  X" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "gpu.ecc.uncorrected" in line]
    assert line.startswith("FAIL  gpu.ecc.uncorrected  GPU 3 GPU-0000")


def test_a_job_on_other_gpus_is_not_held_up_by_one_with_a_fault(
    distrun: Run, machine: Machine
) -> None:
    environ = machine(FAKE_GPUS=4, FAKE_ECC_VOLATILE="3:2")
    assert found(distrun("check", "--json", env=environ))["gpu.ecc.uncorrected"] == "FAIL"
    others = found(distrun("check", "--json", "--gpus", "0,1", env=environ))
    assert "gpu.ecc.uncorrected" not in others
    on_cpu = found(distrun("check", "--json", "--nproc-per-node", "cpu", env=environ))
    assert on_cpu["gpu.ecc.uncorrected"] == "INFO"


def test_gpus_that_the_environment_hides_are_neither_counted_nor_judged(
    distrun: Run, machine: Machine
) -> None:
    environ = {**machine(FAKE_GPUS=4, FAKE_ECC_VOLATILE="3:2"), "CUDA_VISIBLE_DEVICES": "1,2"}
    result = distrun("check", "--json", env=environ)
    assert report_of(result)["job"]["nproc_per_node"] == 2
    assert not {"gpu.count", "gpu.ecc.uncorrected"} & set(found(result))


def test_the_same_fault_of_many_gpus_is_one_line(distrun: Run, machine: Machine) -> None:
    result = distrun("check", env=machine(FAKE_GPUS=6, FAKE_REMAP_PENDING="0:1,1:1,2:1,4:1"))
    lines = [line for line in result.stdout.splitlines() if "gpu.remap.pending" in line]
    assert len(lines) == 1
    assert "GPUs 0-2, 4" in lines[0]


@pytest.mark.timeout(60)
def test_a_driver_that_hangs_is_a_probe_that_did_not_finish(distrun: Run, machine: Machine) -> None:
    result = distrun("check", env=machine(FAKE_GPUS=2, FAKE_HANG=1))
    assert result.returncode == 3
    assert "NVML did not answer within" in result.stdout


# --- --watch -----------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_watch_goes_on_until_it_is_told_to_end(
    command: list[str], tmp_path: Path, signum: int, code: int
) -> None:
    child = subprocess.Popen(
        [*command, "check", "--watch"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    lines = [child.stdout.readline() for _ in range(2)]
    assert all(" this machine: " in line for line in lines)
    child.send_signal(signum)
    rest, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (code, "")
    assert all(" this machine: " in line for line in rest.splitlines())


def test_a_watch_ends_with_its_reader(command: list[str], tmp_path: Path) -> None:
    child = subprocess.Popen(
        [*command, "check", "--watch"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout and child.stderr
    child.stdout.readline()
    child.stdout.close()
    child.wait(timeout=20)
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()


# --- --deep ------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_small_job_is_measured_and_kept_with_the_snapshot(distrun: Run, tmp_path: Path) -> None:
    words = ("check", "--deep", "--nproc-per-node", "3", "--save", "s.json")
    result = distrun(*words, timeout_s=100)
    assert "8-byte all_reduce of 3 ranks over gloo: " in result.stdout, result.stderr
    (node,) = read_snapshots(tmp_path / "s.json", Node)
    assert node.measured is not None
    assert [rank.rank for rank in node.measured.ranks] == [0, 1, 2]
    assert all(rank.matmul_flops > 1e8 for rank in node.measured.ranks)
    assert [(link.a, link.b) for link in node.measured.links] == [(0, 1), (0, 2), (1, 2)]
    assert (node.measured.problem, node.measured.all_reduce_right) == ("", True)


@pytest.mark.timeout(120)
def test_a_small_job_that_fails_is_a_finding(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.distrun.env]\nGLOO_SOCKET_IFNAME = "nope0"\n')
    words = ("check", "--deep", "--nproc-per-node", "2", "--json")
    result = distrun(*words, timeout_s=100)
    assert result.returncode == 1
    (failed,) = [f for f in json.loads(result.stdout)["findings"] if f["severity"] == "FAIL"]
    assert failed["id"] == "deep.job"
    assert "nope0" in result.stderr
