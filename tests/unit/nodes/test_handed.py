"""A probe that becomes the agent of its node, and its connection that is handed on."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import distrun
from distrun.nodes import handed
from distrun.nodes.handed import Handed, Kept, most_kept
from distrun.nodes.machines import OtherMachines
from distrun.nodes.probes import Probes
from distrun.processes import start_time
from distrun.wire import Message, encoded
from tests.conftest import wait_until
from tests.unit.echo import Echo
from tests.unit.nodes.test_probes import ECHO

PROBE = (sys.executable, "-m", "distrun.probe", "--serve", "--quick", "--no-gpus")
ORDER: Message = {
    "words": None,
    "environ": {},
    "tag": "unit-test/0",
    "streams": {},
    "workdir": "/no such directory",
}
FAILED = {
    "event": "start_failed",
    "what": "the agent cannot be started",
    "why": "/no such directory: No such file or directory",
}


@pytest.fixture
def machines() -> Iterator[OtherMachines]:
    with closing(OtherMachines({"a": PROBE, "b": PROBE}, keeps=9)) as machines:
        assert [node.problem for node in machines.read()] == ["", ""]
        yield machines


@pytest.fixture
def kept(machines: OtherMachines) -> Iterator[Kept]:
    with closing(machines.agents(["a", "b"])) as kept:
        yield kept


def messages(handed: Handed) -> list[Message]:
    """Return what it answers to an order that cannot be carried out, to its end."""
    talk = handed.opened()
    talk.send(ORDER)
    found: list[Message] = []

    def at_its_end() -> bool:
        came = talk.read()
        found.extend(message for message, _ in came or ())
        return came is None

    wait_until(at_its_end)
    return found


def test_a_probe_becomes_the_agent_in_the_same_process_and_takes_the_order(kept: Kept) -> None:
    first, _ = kept.of(["a", "b"]).values()
    command_line = Path(f"/proc/{first.pid}/cmdline")
    wait_until(lambda: b"distrun.agent.remote" in command_line.read_bytes())
    assert messages(first) == [FAILED]
    wait_until(lambda: not start_time(first.pid))


def test_one_that_has_ended_or_is_not_wanted_is_not_handed_on(kept: Kept) -> None:
    pids = {name: each.pid for name, each in kept.of(["a", "b"]).items()}
    os.kill(pids["a"], signal.SIGKILL)
    wait_until(lambda: not start_time(pids["a"]))
    assert list(kept.of(["a", "b"])) == ["b"]
    assert kept.of(["a"]) == {}


def test_a_port_that_it_held_is_free_when_it_is_the_agent(machines: OtherMachines) -> None:
    port = machines.free_port("a")
    assert port
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("", port))
    with closing(machines.agents(["a"])):
        socket.create_server(("", port)).close()


def test_others_stay_probes(machines: OtherMachines) -> None:
    with closing(machines.agents(["a"])) as kept:
        assert list(kept.of(["a", "b"])) == ["a"]
        assert machines.free_port("b")


def test_a_program_that_cannot_become_one_stays_what_it_is() -> None:
    with closing(Probes({"a": [sys.executable, "-c", ECHO]})) as probes:
        assert probes.become_agents(["a"], 20.0) == []
        assert [probe.gone for probe in probes.alive] == [""]


def test_connections_that_nobody_has_any_more_are_closed(machines: OtherMachines) -> None:
    kept = machines.agents(["a", "b"])
    pids = [each.pid for each in kept.of(["a", "b"]).values()]
    del kept
    wait_until(lambda: not any(map(start_time, pids)))


def test_those_that_were_left_to_a_supervisor_go_on(kept: Kept) -> None:
    (first, _) = kept.of(["a", "b"]).values()
    ours = Handed(first.pid, first.start, *map(os.dup, first.fds))
    kept.leave()
    assert messages(ours) == [FAILED]
    ours.close()


def test_those_that_may_end_soon_without_an_order_are_not_handed_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handed, "_FRESH_S", -1.0)
    assert kept.of(["a", "b"]) == {}


def test_as_many_are_kept_as_there_may_be_files(machines: OtherMachines) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert 40 < most_kept() < 64, "(256 - 64 - open files) / 3"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    machines._keeps = 1
    with closing(machines.agents(["a", "b"])) as kept:
        assert list(kept.of(["a", "b"])) == ["a"]


def test_no_process_that_has_the_pid_later_is_killed() -> None:
    with closing(Echo()) as other:
        handed = Handed(other.pid, "the start of an earlier process", 0, 1, 2)
        handed.kill()
        handed.kill_all()
        assert other.answers()


def test_a_client_is_killed_alone_and_later_what_it_has_started() -> None:
    """srun has a child that ends the step when srun was killed."""
    words = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout
        child = int(leader.stdout.readline())
        client = Handed(leader.pid, start_time(leader.pid), 0, 1, 2)
        client.kill()
        assert leader.wait(10) == -signal.SIGKILL
        assert start_time(child)
        client.kill_all()
        wait_until(lambda: not start_time(child))


def test_the_agent_is_of_the_distrun_that_the_probe_is_of(tmp_path: Path) -> None:
    decoy = tmp_path / "distrun/agent"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").touch()
    (decoy.parent / "__init__.py").touch()
    (decoy / "remote.py").write_text('def main(**_): print(\'{"event": "decoy"}\')\n')
    here = str(Path(distrun.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {here!r})\n"
    code += "from distrun.agent_start import become_agent; become_agent()"
    order = encoded(ORDER)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, input=order, env=environ, stdout=subprocess.PIPE, timeout=60)
    assert json.loads(done.stdout) == FAILED


def test_an_agent_without_an_order_ends_by_itself() -> None:
    code = "from distrun.agent import remote; remote.LOST_AFTER_S = 0.2; remote.main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as waits:
        assert waits.wait(60) == 0
