"""A conversation with a program: commands, messages, words, and a program that does not read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from distrun.nodes import conversation
from distrun.nodes.conversation import Conversation
from tests.conftest import wait_until

ECHO = (
    "import json, sys\n"
    "from distrun.wire import greet\n"
    "print('Last login: yesterday', flush=True)\n"
    "greet(1)\n"
    "sys.stderr.write('a word\\n')\n"
    "for line in sys.stdin.buffer:\n"
    "    line = line.replace(b'\\0', b'')\n"
    "    sys.stdout.write(json.dumps({'said': json.loads(line), 'nbytes': 3}) + '\\nraw')\n"
    "    sys.stdout.flush()\n"
)
DEAF = "import time; time.sleep(600)"
Start = Callable[[str], Conversation]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def run(program: str) -> Conversation:
        started.append(conversation.start([sys.executable, "-c", program]))
        return started[-1][0]

    yield run
    for talk, _ in started:
        talk.close()
    conversation.end([child for _, child in started], 1.0)


def test_messages_and_raw_bytes_come_back_and_a_banner_is_none(start: Start) -> None:
    talk = start(ECHO)
    talk.send({"command": "a", "text": "é\n\0"})
    found: list[tuple[dict[str, Any], bytes]] = []

    def has_come() -> bool:
        found.extend((message, bytes(raw)) for message, raw in talk.read() or ())
        return bool(found)

    wait_until(has_come)
    assert found == [({"said": {"command": "a", "text": "é\n\0"}, "nbytes": 3}, b"raw")]


def test_its_words_are_kept_and_its_banner_stands_in_for_none(start: Start) -> None:
    talk = start(ECHO)
    wait_until(lambda: b"a word" in talk.read_words() or b"a word" in talk.words)
    assert talk.last_lines == ["a word"]
    silent = start("print('This account is not available.')")
    wait_until(lambda: silent.read() is None)
    assert silent.last_lines == ["This account is not available."]


def test_a_program_that_does_not_read_stops_nobody(start: Start) -> None:
    talk = start(DEAF)
    for _ in range(100):
        talk.send({"text": "x" * 10_000})
    assert talk.flush(), "some is left"


def test_a_program_gets_the_limit_of_files_that_is_meant_for_it() -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    talk, child = conversation.start([sys.executable, "-c", code], soft_limit=300)
    wait_until(lambda: talk.read() is None)
    assert talk.last_lines == ["300"]
    talk.close()
    conversation.end([child], 10.0)
    for limit in (None, 300):
        with pytest.raises(FileNotFoundError, match="No such file or directory: 'no-such-ssh'"):
            conversation.start(["no-such-ssh", "a"], soft_limit=limit)


def test_sending_to_one_that_has_ended_is_no_error(start: Start) -> None:
    talk = start("pass")
    wait_until(lambda: talk.read() is None)
    talk.send({"command": "a"})
    assert not talk.flush()
