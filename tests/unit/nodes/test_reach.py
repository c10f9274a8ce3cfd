"""Who reaches whom: from what probes say, in time, late or not at all."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from distrun.api.check import judged
from distrun.checks.rule import Severity
from distrun.nodes import reach
from distrun.nodes.machines import OtherMachines
from distrun.probe.snapshot import Node
from distrun.spec.job import Settings
from tests.unit.checks.bases import server

ANSWERS = """
import json, sys, time
from distrun.wire import greet
greet(1)
port, connects, clocks = 40000, 0, 0
print(open(sys.argv[1]).read(), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "clock" in request:
        clocks += 1
        answer = {"now": time.time()}
        if clocks == 1 and LATE_S:
            time.sleep(LATE_S)
            answer = {"now": time.time() + 1000}
    elif "listen" in request:
        port += 1
        answer = {"port": request.get("port", port)}
    else:
        connects += 1
        AT_A_CONNECTION
        answer = {"problem": "refused"}
    print(json.dumps(answer), flush=True)
"""
REFUSED = "pass"
SILENT = "continue"
SILENT_AFTER_TWO = "if connects > 2: continue"
ENDS = "sys.exit('Connection to b closed by remote host.')"

Look = Callable[..., tuple[Node, ...]]


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Start a probe for each node that does so at a connection, and take the whole picture."""
    monkeypatch.setattr(reach, "_CONNECT_LIMIT_S", 1.5)

    def run(late_s: float = 0.0, **programs: str) -> tuple[Node, ...]:
        commands = {}
        for number, (name, program) in enumerate(programs.items()):
            node = dataclasses.replace(server(f"node{number}"), name=name)
            (tmp_path / name).write_text(json.dumps(dataclasses.asdict(node)))
            code = ANSWERS.replace("AT_A_CONNECTION", program).replace("LATE_S", str(late_s))
            commands[name] = [sys.executable, "-c", code, str(tmp_path / name)]
        with closing(OtherMachines(commands)) as there:
            return there.whole_picture(29500)

    return run


def told(nodes: tuple[Node, ...]) -> list[tuple[str, str, Severity]]:
    """Return what is said of connections: the node, the text, the severity."""
    found = judged(nodes, Settings()).findings
    return [(f.node, f.observed, f.severity) for f in found if f.id == "nodes.reach"]


def test_what_probes_say_is_told_of_each_way(look: Look) -> None:
    nodes = look(a=REFUSED, b=REFUSED)
    assert [node.problem for node in nodes] == ["", ""]
    assert told(nodes) == [
        ("a", "a cannot reach b, b:40001: refused", Severity.FAIL),
        ("b", "b cannot reach a, a:40001: refused", Severity.FAIL),
        ("b", "b cannot reach a, rendezvous port a:29500: refused", Severity.FAIL),
    ]


def test_of_several_answers_the_quickest_tells_the_offset_of_a_clock(look: Look) -> None:
    for node in look(late_s=1.0, a=REFUSED):
        assert node.host.clock_offset_s is not None
        assert abs(node.host.clock_offset_s) < 500, "the answer that came late says 1000"


def test_a_probe_that_is_late_with_its_connections_keeps_what_it_read(look: Look) -> None:
    began = time.monotonic()
    nodes = look(a=REFUSED, b=SILENT, c=REFUSED)
    assert time.monotonic() - began < 15
    assert [node.problem for node in nodes] == [""] * 3
    assert [len(node.nvml.gpus) for node in nodes] == [8] * 3
    assert nodes[1].reaches == ()
    assert [text for node, text, severity in told(nodes) if severity == Severity.FAIL] == [
        "a cannot reach b, b:40001: refused",
        "a cannot reach c, c:40001: refused",
        "c cannot reach a, a:40001: refused",
        "c cannot reach a, rendezvous port a:29500: refused",
        "c cannot reach b, b:40001: refused",
    ]
    assert ("b", "connections were not tried", Severity.SKIP) in told(nodes)


def test_what_it_said_in_time_counts_and_the_rest_is_no_pass(look: Look) -> None:
    nodes = look(a=REFUSED, b=SILENT_AFTER_TWO, c=REFUSED)
    assert {each.target for each in nodes[1].reaches} == {"a"}
    assert [each for each in told(nodes) if each[0] == "b"][-1] == (
        *("b", "connections to c were not tried", Severity.SKIP),
    )


def test_a_probe_that_ends_meanwhile_is_a_node_that_cannot_be_reached(look: Look) -> None:
    nodes = look(a=REFUSED, b=ENDS)
    assert [node.problem for node in nodes] == ["", "Connection to b closed by remote host."]
