"""Probes at work: what answers, what is silent, what ends, and what only makes a noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from distrun.errors import MachineError
from distrun.nodes.probes import Probes

GREETS = "from distrun.wire import greet; greet(1)\n"
BANNER = (
    """print('Welcome', '[1]', 'null', '{"disk": "ok", "nbytes": 99}', '$ ', sep='\\n', end='')"""
)
ECHO = (
    f"import json, sys\n{BANNER}; sys.stdout.flush()\n{GREETS}"
    "for line in sys.stdin:\n"
    "    print(json.dumps({'asked': json.loads(line)}), flush=True)\n"
)
SILENT = "import sys; sys.stdin.read()"
DIES = "import sys; sys.stdin.readline(); print('a word'); sys.exit('boom: no disk')"
MUTE = "import os; os._exit(7)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"

Start = Callable[[dict[str, str]], Probes]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Probes] = []

    def run(programs: dict[str, str]) -> Probes:
        started.append(Probes({n: [sys.executable, "-c", code] for n, code in programs.items()}))
        return started[-1]

    yield run
    for probes in started:
        probes.close()


def ask(probes: Probes, *requests: dict[str, object], limit_s: float = 20.0) -> dict[str, object]:
    for probe in probes.alive:
        for request in requests:
            probe.send(request)
    return probes.answers({p.name: len(requests) for p in probes.probes}, limit_s)  # type: ignore[return-value]


def test_answers_come_in_the_order_of_the_questions_and_noise_is_none(start: Start) -> None:
    probes = start({"a": ECHO, "b": ECHO})
    found = ask(probes, {"n": 1}, {"n": 2})
    both = [{"asked": {"n": 1}}, {"asked": {"n": 2}}]
    assert found == {"a": both, "b": both}
    assert ask(probes, {"n": 3})["a"] == [{"asked": {"n": 3}}]
    assert [probe.gone for probe in probes.probes] == ["", ""]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (DIES, "boom: no disk"),
        (MUTE, "the probe ended with exit code 7"),
    ],
)
def test_one_that_ends_says_why_and_the_others_go_on(start: Start, program: str, why: str) -> None:
    probes = start({"a": ECHO, "b": program})
    found = ask(probes, {"n": 1})
    assert found == {"a": [{"asked": {"n": 1}}], "b": []}
    assert [probe.gone for probe in probes.probes] == ["", why]
    assert [probe.name for probe in probes.alive] == ["a"]
    assert ask(probes, {"n": 2}) == {"a": [{"asked": {"n": 2}}], "b": []}


def test_one_that_is_silent_is_given_up_at_the_limit(start: Start) -> None:
    probes = start({"a": ECHO, "b": SILENT})
    assert ask(probes, {"n": 1}, limit_s=2.0)["b"] == []
    assert [probe.gone for probe in probes.probes] == ["", "no answer within 2 s"]


def test_one_that_does_not_end_is_ended(start: Start) -> None:
    probes = start({"a": DEAF})
    probes.close()  # that no process is left is asserted after every test


def test_a_question_to_one_that_is_gone_breaks_nothing(start: Start) -> None:
    probes = start({"a": MUTE})
    ask(probes, {"n": 1})
    probes.probes[0].send({"n": 2})
    assert ask(probes, {"n": 3}) == {"a": []}


def test_a_program_that_is_not_there_is_told() -> None:
    commands: dict[str, Sequence[str]] = {"a": ["no-such-ssh", "a"]}
    with pytest.raises(MachineError, match="no-such-ssh cannot be started: No such file"):
        Probes(commands)


def test_more_probes_than_may_log_in_at_once_answer_all_the_same(
    start: Start, tmp_path: Path
) -> None:
    """Each has a file while it logs in, and waits for a while for one more than may be there."""
    program = (
        f"import json, os, time\n{GREETS}os.chdir({str(tmp_path)!r}); mine = str(os.getpid())\n"
        "open(mine, 'x').close(); until = time.monotonic() + 1.5\n"
        "while (seen := len(os.listdir())) <= 32 and time.monotonic() < until: time.sleep(0.01)\n"
        "print(json.dumps({'seen': seen}), flush=True); os.unlink(mine)\n"
    )
    names = [f"n{number}" for number in range(70)]
    probes = start(dict.fromkeys(names, program))
    found = probes.answers(dict.fromkeys(names, 1), 60.0)
    counts = [answers[0]["seen"] for answers in found.values()]
    assert len(counts) == 70
    assert max(counts) <= 32
