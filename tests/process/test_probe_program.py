"""`python -m distrun.probe` as it runs on another node: light, one line, gone with its pipes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from distrun.probe.node import read_node
from distrun.probe.snapshot import SCHEMA

PROBE = [sys.executable, "-m", "distrun.probe"]
Ask = Callable[[dict[str, Any]], dict[str, Any]]
_NO_ENDS = {"from": "", "to": ""}


def test_it_prints_this_machine_as_one_line_of_json(tmp_path: Path) -> None:
    words = [*PROBE, "--name", "node a;'\u00fc", "--runs-dir", tmp_path / "no such" / "runs"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    (line,) = done.stdout.splitlines()
    node = json.loads(line)
    assert (node["name"], node["schema"], node["problem"]) == ("node a;'\u00fc", SCHEMA, "")
    assert node["host"]["hostname"] == socket.gethostname()
    assert node["host"]["runs_dir_writable"] is True
    assert node["host"]["runs_dir_free_nbytes"] > 0
    assert node["software"]["torch"].startswith("2.")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys; sys.argv = ['probe']; runpy.run_module('distrun.probe', "
        "run_name='__main__'); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "distrun" in loaded
    assert not loaded & {"torch", "numpy", "typer", "click", "rich", "pydantic", "pynvml"}
    assert not loaded & {"asyncio", "multiprocessing", "importlib_metadata"}


def test_a_probe_that_fails_is_told_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1 / 0)
    node = read_node("a", want_gpus=False)
    assert node.problem == "the probe failed: ZeroDivisionError('division by zero')"
    assert node.nvml.problem == node.problem


# --- --serve ---------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A probe that has told its node and waits for requests."""
    words = [*PROBE, "--serve", "--no-gpus"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "\n"
        assert json.loads(process.stdout.readline()) == {"greeting": "distrun"}
        assert json.loads(process.stdout.readline())["schema"] == SCHEMA
        yield process
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.fixture
def ask(server: subprocess.Popen[str]) -> Ask:
    """Send a request and return the answer."""
    stdin, stdout = server.stdin, server.stdout
    assert stdin is not None
    assert stdout is not None

    def send(request: object, to: IO[str] = stdin, back: IO[str] = stdout) -> dict[str, Any]:
        to.write((request if isinstance(request, str) else json.dumps(request)) + "\n")
        to.flush()
        answer: dict[str, Any] = json.loads(back.readline())
        return answer

    return send


def test_a_port_that_it_listens_on_can_be_reached(ask: Ask) -> None:
    port = ask({"listen": True})["port"]
    socket.create_connection(("127.0.0.1", port), 5).close()
    ends = {"from": "127.0.0.1", "to": "127.0.0.1"}
    assert ask({"connect": ["127.0.0.1", port]}) == {"problem": "", **ends}


def test_a_named_port_is_had_if_it_is_free_and_its_holder_is_named_if_not(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        problem = ask({"listen": True, "port": port})["problem"]
        assert problem.startswith("is in use by another process (")
        assert f"pid {os.getpid()})" in problem
    assert ask({"listen": True, "port": port}) == {"port": port}


def test_a_connection_that_fails_says_how(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert ask({"connect": ["127.0.0.1", port]}) == {"problem": "refused", **_NO_ENDS}
    unknown = {"problem": "the name does not resolve", **_NO_ENDS}
    assert ask({"connect": ["no-such-host.invalid", 80]}) == unknown
    assert ask({"connect": ["a..b", 80]}) == unknown


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that answers nobody any more."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for full in (first, second):  # the queue of one, and the one on its way
            full.setblocking(False)
            full.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]


def test_a_connection_that_nobody_answers_times_out(ask: Ask, deaf: int) -> None:
    began = time.monotonic()
    assert ask({"connect": ["127.0.0.1", deaf]}) == {"problem": "timed out", **_NO_ENDS}
    assert time.monotonic() - began < 6


def test_many_connections_take_as_long_as_one_and_are_answered_in_their_order(
    server: subprocess.Popen[str], ask: Ask, deaf: int
) -> None:
    port = ask({"listen": True})["port"]
    both = [{"connect": ["127.0.0.1", deaf]}, {"connect": ["127.0.0.1", port]}]
    assert server.stdin
    assert server.stdout
    began = time.monotonic()
    server.stdin.write("".join(json.dumps(request) + "\n" for request in both * 50))
    first = ask({"connect": ["no-such-host.invalid", 1]})  # its answer is the last
    rest = [json.loads(server.stdout.readline()) for _ in range(100)]
    assert time.monotonic() - began < 10  # one after another: 150 s
    problems = [answer["problem"] for answer in (first, *rest)]
    assert problems == [*["timed out", ""] * 50, "the name does not resolve"]


def test_it_tells_the_time(ask: Ask) -> None:
    before = time.time()
    assert before <= ask({"clock": True})["now"] <= time.time()


def test_it_reads_its_machine_anew_as_often_as_it_is_asked(ask: Ask) -> None:
    first, second = (ask({"read": True, "quick": quick}) for quick in (True, False))
    assert first["schema"] == second["schema"] == SCHEMA
    assert first["host"]["kernel"] == second["host"]["kernel"] != ""
    assert ask({"clock": True})["now"] > 0


@pytest.mark.parametrize(
    "request_line",
    [
        *("[]", "x", '"listen"', "{}", '{"listen": true, "port": 65536}', '{"connect": 5}'),
        *('{"connect": ["a"]}', '{"connect": ["127.0.0.1", 100000]}', '{"listen": 1, "port": []}'),
    ],
)
def test_a_request_that_is_none_is_refused_and_the_next_is_answered(
    ask: Ask, request_line: str
) -> None:
    assert ask(request_line)["problem"].startswith("not understood: ")
    assert "now" in ask({"clock": True})


def test_requests_before_the_end_of_its_input_are_answered_and_then_it_ends() -> None:
    requests = '{"clock": true}\n{"listen": true}\n'
    done = subprocess.run(
        [*PROBE, "--serve", "--no-gpus"], input=requests, capture_output=True, text=True, timeout=60
    )
    _, node, clock, port = map(json.loads, done.stdout.split("\n")[1:-1])
    assert node["schema"] == SCHEMA
    assert "now" in clock
    assert "port" in port
    assert (done.returncode, done.stderr) == (0, "")


def test_it_does_not_outlive_its_input_even_in_a_hanging_driver(
    driver: Path, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    fakes = {"LD_LIBRARY_PATH": str(driver), "FAKE_HANG": "1", "FAKE_LOG": str(log)}
    words = [*PROBE, "--serve", "--deadline", "60"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(words, env=os.environ | fakes, **pipes) as process:  # type: ignore[call-overload]
        deadline = time.monotonic() + 20
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # the clock only paces the asking
        (child,) = psutil.Process(process.pid).children()
        process.stdin.close()
        assert process.wait(10) == 0
    child.wait(5)


def test_it_ends_when_nobody_reads_its_answers() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [*PROBE, "--serve", "--no-gpus"]
    with subprocess.Popen(words, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b'{"clock": true}\n')
        process.stdin.flush()
        assert process.wait(10) == 1
        assert process.stderr.read() == b""
