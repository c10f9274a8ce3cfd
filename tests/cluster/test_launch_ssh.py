"""`distrun launch --hosts` on two hosts behind sshd: it trains, fails, and leaves nothing there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distrun.processes import descendants
from tests.cluster.hosts import Hosts
from tests.cluster.launches import launched, nothing_is_left

TWO = ("--hosts", "n01,n02", "--nproc-per-node", "1")
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def test_ranks_of_two_hosts_meet_and_each_has_its_log(hosts: Hosts, tmp_path: Path) -> None:
    with launched(hosts, tmp_path, *TWO, "train.py", "end") as launch:
        assert launch.ends() == 0, launch.printed
    printed = launch.printed
    assert {"[0·0] begun 0", "[1·1] begun 1"} <= set(printed.splitlines())
    assert re.search(r"n01: Python 3[.\d]+, torch 2\S+, \S+ cores", printed)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "logs/node1/rank1.log").read_text() == "begun 1\n"
    plan = launch.record()["plan"]
    assert [node["host"] for node in plan["nodes"]] == ["n01", "n02"]
    expected = [hosts.addresses[name] for name in ("n01", "n02")]
    assert [node["address"] for node in plan["nodes"]] == expected
    assert {node["environ"]["GLOO_SOCKET_IFNAME"] for node in plan["nodes"]} == {"eth0"}
    nothing_is_left(hosts)


def test_a_rank_that_fails_is_named_with_its_host(hosts: Hosts, tmp_path: Path) -> None:
    with launched(hosts, tmp_path, *TWO, "train.py", "raise") as launch:
        assert launch.ends() == 1
    assert "rank 1 on n02 failed first: ValueError: no such sample: 7" in launch.printed
    nothing_is_left(hosts)


@pytest.mark.parametrize(
    ("host", "why", "cure"),
    [
        ("stranger", "Host key verification failed", "`ssh stranger` once"),
        ("changed", "Host key verification failed", "ssh-keygen -R changed"),
        ("unknown-key", "Permission denied", "ssh-copy-id"),
        ("refused", "Connection refused", "is sshd running on refused?"),
        ("no-route", "No route to host|timed out", "switched on"),
        ("no.such.host.example", "Could not resolve hostname", "spelt right"),
    ],
)
def test_a_host_that_cannot_be_reached_is_told_with_its_cure_and_nothing_starts(
    hosts: Hosts, tmp_path: Path, host: str, why: str, cure: str
) -> None:
    words = ("--hosts", f"n01,{host}", "--nproc-per-node", "1", "train.py", "end")
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 4
    assert re.search(f"distrun: {host}: not reached: .*({why})", launch.printed), launch.printed
    assert cure in launch.printed
    assert f"1 of 2 nodes cannot be reached: {host}\n" in launch.printed
    assert not (tmp_path / "runs").exists()
    nothing_is_left(hosts)


def test_a_host_without_python_says_so(hosts: Hosts, tmp_path: Path) -> None:
    words = ("--hosts", f"n01,{hosts.bare()}", "--nproc-per-node", "1", "train.py", "end")
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 4
    assert "--python names one" in launch.printed


def test_two_names_of_one_host_are_refused(hosts: Hosts, tmp_path: Path) -> None:
    words = ("--hosts", "n01,n01-6", "--nproc-per-node", "1", "train.py", "end")
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 2, launch.printed
    assert "n01 and n01-6 are one machine: 'n01'" in launch.printed
    assert not (tmp_path / "runs").exists()
    nothing_is_left(hosts)


def kill_client(launch_pid: int, name: str, signum: int) -> None:
    """Send a signal to the ssh client of a node's agent, which was its probe before."""
    for pid in descendants(launch_pid):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"distrun.probe" in line and name.encode() in line.split(b"\0"):
            os.kill(pid, signum)
            return
    raise AssertionError(f"no ssh to {name}")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_ssh_client_is_a_lost_node_that_ends_by_itself(
    hosts: Hosts, tmp_path: Path, signum: int
) -> None:
    with launched(hosts, tmp_path, *TWO, "--grace", "5", "train.py", "wait") as launch:
        launch.until("begun", 2)
        kill_client(launch.child.pid, "n02", signum)
        assert launch.ends() == 5
    assert "the connection to n02 ended unexpectedly" in launch.printed
    nothing_is_left(hosts)


def processes_killed(hosts: Hosts) -> None:
    for pid, line in hosts.pids("n02").items():
        if "sshd" not in line:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (processes_killed, "n02"),
        (lambda hosts: hosts.power_off("n02"), "n02"),
        (lambda hosts: hosts.cut("n02"), "n02: its agent said nothing for 30 s"),
    ],
    ids=["its processes killed", "power lost", "cable cut"],
)
def test_a_node_that_is_lost_is_named(
    hosts: Hosts, tmp_path: Path, fault: Callable[[Hosts], None], told: str
) -> None:
    with launched(hosts, tmp_path, *TWO, "--grace", "5", "train.py", "wait") as launch:
        launch.until("begun", 2)
        fault(hosts)
        assert launch.ends() == 5
    assert re.search(f"NODE LOST: .*{told}", launch.printed), launch.printed
    hosts.mend("n02")
    nothing_is_left(hosts, limit_s=45)  # the lease


@pytest.mark.thorough  # 100 s; tests/cluster/test_hangs_ssh.py cuts a cable too
def test_a_cable_that_is_out_for_15_s_ends_nothing_and_stacks_name_who_is_not_heard(
    hosts: Hosts, tmp_path: Path
) -> None:
    def stacks() -> dict[str, Any]:
        command = [sys.executable, "-m", "distrun", "stacks", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    with launched(hosts, tmp_path, *TWO, "train.py", "talk") as launch:
        launch.until("begun", 2)
        assert (stacks()["hosts"], stacks()["silent"]) == ({"0": "n01", "1": "n02"}, [])
        hosts.cut("n02")
        launch.until("the agent of n02 has been silent for 10 s")
        (silent,) = stacks()["silent"]  # it waits 5 s for the answer
        why = "its node did not answer in time"
        assert silent == {"rank": 1, "host": "n02", "why": why}
        hosts.mend("n02")
        assert launch.ends() == 0
    nothing_is_left(hosts)


def test_a_launcher_that_is_killed_leaves_nothing(hosts: Hosts, tmp_path: Path) -> None:
    with launched(hosts, tmp_path, *TWO, "train.py", "wait") as launch:
        launch.until("begun", 2)
        everybody = [launch.child.pid, *descendants(launch.child.pid)]
        for pid in everybody:
            os.kill(pid, signal.SIGKILL)
        launch.ends()
    nothing_is_left(hosts)


@pytest.mark.parametrize("user", ["cora", "nemo"])
def test_a_greeting_or_a_missing_home_confuses_nothing(
    hosts: Hosts, tmp_path: Path, user: str
) -> None:
    """`cora` has csh and a greeting on stdout, `nemo` no home; neither may read root's files."""
    words = ("--hosts", f"{user}@n01,{user}@n02", "--nproc-per-node", "1", "train.py", "end")
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 3
    assert f"{user}@n01: Python 3" in launch.printed
    assert re.search(f"torch is not installed on|on {user}@n0.: Permission denied", launch.printed)
    nothing_is_left(hosts)


def test_values_of_variables_arrive_byte_for_byte_and_are_shown_nowhere(
    hosts: Hosts, tmp_path: Path
) -> None:
    hostile = "a'b\"c $HOME `id` \\ \n; \t\x01é\udcff"
    script = "import os, sys; sys.exit(os.environ['WEIRD'] != eval(sys.argv[1]))"
    (tmp_path / "check.py").write_text(script)
    words = (*TWO, "--env", f"WEIRD={hostile}", "check.py", repr(hostile))
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 0, launch.printed


def test_a_script_that_is_not_there_is_told_before_the_start(hosts: Hosts, tmp_path: Path) -> None:
    words = (
        "--hosts",
        "n01,n02",
        "--nproc-per-node",
        "1",
        "--workdir",
        "/nowhere",
        "train.py",
        "end",
    )
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 3
    assert "'train.py' cannot be read in '/nowhere' on n01: " in launch.printed
    assert "--workdir names the directory there" in launch.printed


def test_a_detached_run_goes_on_and_is_stopped_by_its_name(hosts: Hosts, tmp_path: Path) -> None:
    with launched(hosts, tmp_path, *TWO, "--detach", "train.py", "wait") as launch:
        assert launch.ends() == 0, launch.printed
    run_id = re.search(r"running as (\S+),", launch.printed)
    assert run_id
    stop = [sys.executable, "-m", "distrun", "stop", run_id[1]]
    done = subprocess.run(stop, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert launch.record()["exit_code"] == 143
    nothing_is_left(hosts)


@pytest.mark.thorough  # as by IPv4
def test_hosts_that_are_named_by_ipv6_addresses_train_too(hosts: Hosts, tmp_path: Path) -> None:
    words = ("--hosts", "n01-6,n02-6", "--nproc-per-node", "1", "train.py", "end")
    for name in hosts.names:  # the names are of ssh_config alone, and no host has IPv4
        hosts.write_hosts(name, dict.fromkeys(hosts.names, ""))
        hosts.run(name, ["ip", "-4", "addr", "flush", "dev", "eth0"])
    with launched(hosts, tmp_path, *words) as launch:
        assert launch.ends() == 0, launch.printed
    addresses = [node["address"] for node in launch.record()["plan"]["nodes"]]
    assert addresses == [hosts.addresses6[name] for name in ("n01", "n02")]


@pytest.mark.thorough  # a launch shares nothing with another
def test_two_launches_to_the_same_hosts_at_once_disturb_neither(
    hosts: Hosts, tmp_path: Path
) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    with (
        launched(hosts, places[0], *TWO, "train.py", "end") as one,
        launched(hosts, places[1], *TWO, "train.py", "end") as two,
    ):
        assert (one.ends(), two.ends()) == (0, 0), one.printed + two.printed
    nothing_is_left(hosts)


def test_a_run_starts_again_on_the_same_hosts(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(
        "import os, sys, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "dist.all_reduce(torch.ones(1))\n"
        "sys.exit(os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and dist.get_rank() == 1)\n"
    )
    with launched(hosts, tmp_path, *TWO, "--max-restarts", "1", "once.py") as launch:
        assert launch.ends() == 0, launch.printed
    assert launch.record()["attempts"] == 2
    nothing_is_left(hosts)


def test_a_spare_host_takes_the_place_of_a_lost_one(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "spared.py").write_text(
        "import os, time, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "dist.all_reduce(torch.ones(1))\n"
        "print('attempt', os.environ['TORCHELASTIC_RESTART_COUNT'], flush=True)\n"
        "time.sleep(600 * (os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'))\n"
    )
    words = ("--hosts", "n[01-03]", "--nodes", "2", "--spare", "1", "--nproc-per-node", "1")
    with launched(hosts, tmp_path, *words, "--grace", "5", "spared.py") as launch:
        launch.until("attempt 0", 2)
        kill_client(launch.child.pid, "n02", signal.SIGKILL)
        assert launch.ends() == 0, launch.printed
    assert "restarting: n03 takes the place of n02" in launch.printed
    assert launch.printed.count("attempt 1") == 2
    nothing_is_left(hosts)


def test_a_suspected_host_is_checked_there(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "suspect.py").write_text(
        "import json, os, socket, time\n"
        "first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'\n"
        "if first and os.environ['RANK'] == '1':\n"
        "    raise SystemExit(3)\n"
        "print('attempt 1' if not first else 'attempt 0', flush=True)\n"
        "time.sleep(600)\n"
    )
    words = ("--hosts", "n[01-03]", "--nodes", "2", "--spare", "1", "--nproc-per-node", "1")
    with launched(hosts, tmp_path, *words, "--on", "crash=swap", "suspect.py") as launch:
        launch.until("attempt 1", 2)
        launch.until("n02 was checked: ", 1)
        launch.child.send_signal(signal.SIGTERM)
        assert launch.ends() == 143, launch.printed
    nothing_is_left(hosts)


def test_an_elastic_run_goes_on_without_a_lost_host(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "elastic.py").write_text(
        "import os, time, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "dist.all_reduce(torch.ones(1))\n"
        "print('world', dist.get_world_size(), flush=True)\n"
        "time.sleep(600 * (dist.get_world_size() == 3))\n"
    )
    words = ("--hosts", "n[01-03]", "--nodes", "2:3", "--nproc-per-node", "1", "--grace", "5")
    with launched(hosts, tmp_path, *words, "elastic.py") as launch:
        launch.until("world 3", 3)
        kill_client(launch.child.pid, "n01", signal.SIGKILL)  # the head
        assert launch.ends() == 0, launch.printed
    assert launch.printed.count("world 2") == 2
    nothing_is_left(hosts)


def test_a_host_that_cannot_be_reached_is_left_out_of_an_elastic_run(
    hosts: Hosts, tmp_path: Path
) -> None:
    words = ("--hosts", "n01,refused,n02", "--nodes", "2:3", "--nproc-per-node", "1")
    with launched(hosts, tmp_path, *words, "train.py", "end") as launch:
        assert launch.ends() == 0, launch.printed
    assert "refused is left out: ssh: connect to host" in launch.printed


@pytest.mark.thorough  # 100 s; a node that is lost is named above
def test_a_full_tmp_an_end_of_sshd_and_lost_packets_end_nothing(
    hosts: Hosts, tmp_path: Path
) -> None:
    with hosts.full_tmp("n02"), launched(hosts, tmp_path, *TWO, "train.py", "talk") as launch:
        launch.until("begun", 2)
        hosts.stop_sshd("n02")
        hosts.lossy("n02", 5)
        assert launch.ends() == 0, launch.printed
