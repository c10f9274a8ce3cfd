"""The hosts and the Slurm cluster that other tests stand on are what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import openssh
from tests.cluster.hosts import Hosts
from tests.cluster.slurm import NODES, Slurm
from tests.conftest import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


def ssh(hosts: Hosts, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-o", "BatchMode=yes", *words],
        env=hosts.ssh_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_host_is_reached_by_its_name(hosts: Hosts) -> None:
    told = {name: ssh(hosts, name, "hostname").stdout for name in hosts.names}
    assert told == {"n01": "n01\n", "n02": "n02\n", "n03": "n03\n"}
    assert ssh(hosts, "-p", "2222", "n02", "hostname").stdout == "n02\n"


@pytest.mark.parametrize("here, there", [("n01", "n02"), ("n02", "n01")])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_hosts_reach_one_another_by_name_and_family(
    hosts: Hosts, here: str, there: str, family: str
) -> None:
    config = hosts.directory / "ssh_config"
    from_here = ssh(hosts, f"{there}-6" if family == "-6" else there, "echo $SSH_CONNECTION")
    addresses = hosts.addresses6 if family == "-6" else hosts.addresses
    assert from_here.stdout.split()[2] == addresses[there]
    words = ["ssh", family, "-F", str(config), "-o", f"HostName={there}", there, "hostname"]
    assert hosts.run(here, words).stdout == f"{there}\n"


def test_a_host_has_processes_and_files_of_its_own_and_shows_the_tests(
    hosts: Hosts, tmp_path: Path
) -> None:
    (tmp_path / "shown").touch()
    line = f"touch /tmp/there /dev/shm/there; ls {tmp_path}; sleep 0.5 & echo $!; ps -A -o comm="
    told = ssh(hosts, "n01", line).stdout.split("\n")
    assert told[0] == "shown"
    assert "pytest" not in told
    assert hosts.files("n01") == ["/dev/shm/there", "/tmp/there"]
    assert hosts.files("n02") == []
    assert not Path("/tmp/there").exists()
    wait_until(lambda: not hosts.pids("n01"), 10, "the end of sleep")


def test_a_command_runs_there_with_this_environment(hosts: Hosts, tmp_path: Path) -> None:
    code = "import distrun, os, socket; print(socket.gethostname(), os.getcwd())"
    done = hosts.run("n02", [sys.executable, "-c", code], cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"n02 {tmp_path}\n", "")


@pytest.mark.parametrize(
    "name, words",
    [
        ("stranger", "Host key verification failed."),
        ("changed", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        ("unknown-key", "Permission denied (publickey)."),
        ("refused", "Connection refused"),
        ("no-route", "No route to host"),
    ],
)
def test_each_failure_of_ssh_has_its_name(hosts: Hosts, name: str, words: str) -> None:
    done = ssh(hosts, name, "hostname")
    assert done.returncode == 255
    assert words in done.stderr


def test_an_unprivileged_user_logs_in(hosts: Hosts) -> None:
    assert ssh(hosts, "ada@n01", "id -un; echo $HOME").stdout == "ada\n/home/ada\n"
    assert ssh(hosts, "nemo@n01", "id -un; test -d $HOME || echo none").stdout == "nemo\nnone\n"


def test_a_login_prints_a_banner_and_is_csh(hosts: Hosts) -> None:
    if not Path("/bin/csh").exists():
        pytest.skip("needs csh (tcsh)")
    done = ssh(hosts, "cora@n02", "echo $shell")
    assert done.stdout == f"{openssh.GREETING}\n{openssh.JSON_GREETING}\n/bin/csh\n"
    assert openssh.BANNER in done.stderr


def test_a_host_can_lack_python(hosts: Hosts) -> None:
    done = ssh(hosts, hosts.bare(), f"ls -d /usr; python3 -V; {sys.executable} -V")
    assert done.stdout == "/usr\n"
    assert done.stderr.count("not found") + done.stderr.count("No such file") == 2


def test_a_host_can_lack_distrun_and_have_torch(hosts: Hosts) -> None:
    plain = hosts.plain()
    assert ssh(hosts, plain, f"{sys.executable} -c 'import numpy, torch'").returncode == 0
    assert (
        "No module named" in ssh(hosts, plain, f"{sys.executable} -c 'import distrun.env'").stderr
    )


def test_a_cut_host_is_silent_until_it_is_mended(hosts: Hosts) -> None:
    hosts.cut("n02")
    assert ssh(hosts, "-o", "ConnectTimeout=1", "n02", "hostname").returncode == 255
    assert ssh(hosts, "n01", "hostname").stdout == "n01\n"
    hosts.mend("n02")
    for name in ("n02", "n02-6"):
        assert ssh(hosts, name, "hostname").stdout == "n02\n"


def test_a_lossy_host_loses_packets_both_ways(hosts: Hosts) -> None:
    hosts.lossy("n02", 99)
    assert ssh(hosts, "-o", "ConnectTimeout=2", "n02", "hostname").returncode == 255
    hosts.mend("n02")
    hosts.lossy("n02", 10)
    assert ssh(hosts, "n02", "hostname").stdout == "n02\n"


def test_a_host_that_lost_its_power_has_no_process_and_comes_back(hosts: Hosts) -> None:
    sleeping = subprocess.Popen(
        ["ssh", "-o", "ServerAliveInterval=1", "n03", "echo up; sleep 300"],
        env=hosts.ssh_environ(),
        stdout=subprocess.PIPE,
    )
    with sleeping:
        assert sleeping.stdout and sleeping.stdout.readline() == b"up\n"
        assert any("sleep 300" in line for line in hosts.pids("n03").values())
        hosts.power_off("n03")
        assert hosts.pids("n03") == {}
        assert sleeping.wait(timeout=30) == 255
    hosts.mend("n03")
    assert ssh(hosts, "n03", "hostname").stdout == "n03\n"


def test_a_host_whose_daemon_is_stopped_refuses(hosts: Hosts) -> None:
    hosts.stop_sshd("n01")
    assert "Connection refused" in ssh(hosts, "n01", "hostname").stderr
    hosts.start_sshd("n01")
    assert ssh(hosts, "n01", "hostname").stdout == "n01\n"


def test_a_full_tmp_is_full_there_alone(hosts: Hosts) -> None:
    with hosts.full_tmp("n01"):
        assert "No space left" in ssh(hosts, "n01", "echo text > /tmp/text").stderr
        assert ssh(hosts, "n02", "echo text > /tmp/text").stderr == ""
    assert ssh(hosts, "n01", "echo text > /tmp/text").stderr == ""


def test_what_a_test_has_done_to_hosts_is_undone(hosts: Hosts) -> None:
    assert ssh(hosts, "n01", "mkdir -p ~/a/b; nohup sleep 300 >/dev/null 2>&1 &").returncode == 0
    hosts.write_hosts("n01", {"n02": "127.0.0.1"})
    hosts.stop_sshd("n02")
    hosts.cut("n03")
    hosts.restore()
    assert [(hosts.pids(name), hosts.files(name)) for name in hosts.names] == [({}, [])] * 3
    told = hosts.run("n01", ["getent", "ahostsv4", "n02"]).stdout
    assert told.split()[0] == hosts.addresses["n02"]
    assert [ssh(hosts, name, "hostname").returncode for name in hosts.names] == [0, 0, 0]


def test_srun_starts_a_task_on_each_node(slurm: Slurm) -> None:
    done = slurm.run("srun", "-N2", "hostname")
    assert sorted(done.stdout.split()) == [*NODES]


def test_a_batch_script_writes_where_it_was_submitted(slurm: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nhostname > told; srun hostname | sort >> told\n")
    job = slurm.sbatch(script, "--nodes=2")
    slurm.until(job, "COMPLETED")
    assert (tmp_path / "told").read_text().split() == ["n1", "n1", "n2"]


def test_a_preempted_job_is_warned_and_requeued(slurm: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/sh\necho ${SLURM_RESTART_COUNT:-0} >> runs\n"
        "trap 'echo warned >> runs; exit 1' TERM\nsleep 300 & wait\n"
    )
    job = slurm.sbatch(script, "--nodes=2", "--exclusive", "--partition=spot")
    slurm.until(job, "RUNNING")
    assert slurm.run("srun", "-N2", "--exclusive", "true", timeout_s=40).returncode == 0
    slurm.until(job, "RUNNING")
    wait_until(lambda: (tmp_path / "runs").read_text() == "0\nwarned\n1\n", 20, "its second run")


def test_the_job_of_a_node_that_is_down_fails(slurm: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nsleep 300\n")
    job = slurm.sbatch(script, "--nodes=2", "--no-requeue")
    slurm.until(job, "RUNNING")
    slurm.down("n2")
    slurm.until(job, "NODE_FAIL")
    slurm.resume("n2")
    slurm.until_idle()
    assert slurm.squeue() == {}
