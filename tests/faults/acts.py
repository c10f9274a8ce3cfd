"""What is done to a launch from outside, in the middle of training."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable

from tests.faults.running import NAMES, Running, wait_for

Act = Callable[[Running], None]
BLIP_S = 15.0
SOON_S = 20.0


def send(who: str, *signums: int) -> Act:
    """Send signals to one process."""

    def act(running: Running) -> None:
        for signum in signums:
            running.send(who, signum)

    return act


def send_twice(signum: int) -> Act:
    """Send a signal to the launcher, and again when it stops the ranks; the fault is the second."""

    def act(running: Running) -> None:
        running.send("launcher", signum)
        wait_for(lambda: "stopping" in running.screen, 1 if running.by == "torchrun" else SOON_S)
        running.fault_is_now()
        running.send("launcher", signum)

    return act


def stop_for_a_while(who: str) -> Act:
    """Stop a process for 3 s."""

    def act(running: Running) -> None:
        running.send(who, signal.SIGSTOP)
        time.sleep(3)  # what it is to sleep through
        running.send(who, signal.SIGCONT)

    return act


def kill_everything_of_the_launcher(running: Running) -> None:
    """Kill the launcher, the supervisor and the agents, in one moment."""
    agents = [f"agent{node}" for node in range(running.layout.nodes)]
    who = agents if running.by == "torchrun" else ["launcher", "supervisor", *agents]
    for pid in [running.pid_of(each) for each in who]:
        os.kill(pid, signal.SIGKILL)


def kill_ssh(running: Running) -> None:
    """Kill the ssh client that the agent of the second host is reached by."""
    found = running.left()
    clients = [pid for pid, line in found.items() if f" {NAMES[1]} " in line and "ssh" in line]
    os.kill(clients[0], signal.SIGKILL)


def remove_the_run_directory(running: Running) -> None:
    shutil.rmtree(running.cwd / "runs")


def power_off(running: Running) -> None:
    assert running.hosts
    running.hosts.power_off(NAMES[1])


def cut(running: Running) -> None:
    assert running.hosts
    running.hosts.cut(NAMES[1])


def cut_for_15_s(running: Running) -> None:
    cut(running)
    time.sleep(BLIP_S)
    assert running.hosts
    running.hosts.mend(NAMES[1])


def lose(percent: int) -> Act:
    """Lose a share of the packets of the second host, each way."""

    def act(running: Running) -> None:
        assert running.hosts
        running.hosts.lossy(NAMES[1], percent)

    return act


def end_sshd(running: Running) -> None:
    assert running.hosts
    running.hosts.stop_sshd(NAMES[1])
