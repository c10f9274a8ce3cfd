"""The command of a host: what ssh is told, and that nothing in it can be an option."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.schedulers import ssh
from distrun.schedulers.place import Place
from distrun.spec.job import Settings
from distrun.spec.read import validated


def places(**values: Any) -> list[Place]:
    with ssh.nodes(validated(Settings, values, "flag")) as found:
        return found


@pytest.mark.parametrize(
    ("host", "name", "words"),
    [
        ("a", "a", ["--", "a"]),
        ("ada@a", "ada@a", ["--", "ada@a"]),
        ("ada@a:2222", "ada@a:2222", ["-p", "2222", "--", "ada@a"]),
        ("[2001:db8::1]:22", "[2001:db8::1]:22", ["-p", "22", "--", "2001:db8::1"]),
        ("fe80::1%eth0", "fe80::1%eth0", ["--", "fe80::1%eth0"]),
    ],
)
def test_ssh_gets_user_and_port_apart(host: str, name: str, words: list[str]) -> None:
    (place,) = places(hosts=host)
    command = ssh.command(place, "distrun.probe", [])
    assert place.name == name
    assert command[-1 - len(words) : -1] == words


def test_a_host_has_its_own_interpreter_address_and_slots() -> None:
    table = {"name": "a", "python": "/opt/venv/bin/python", "address": "10.0.0.2", "slots": 4}
    first, second = places(hosts=[table, "b"], python="python3.12")
    assert (first.python, first.address, first.slots) == ("/opt/venv/bin/python", "10.0.0.2", 4)
    assert (second.python, second.address, second.slots) == ("python3.12", "", None)


def test_a_hostile_place_stays_one_word_and_no_option() -> None:
    name = "-oProxyCommand=$(touch owned)"
    command = ssh.command(Place(name, name), "distrun.probe", ["--name", name])
    assert command[-3:-1] == ["--", name]
    assert command[-1].startswith("exec sh -c '")


def test_without_hosts_there_is_nothing_to_reach() -> None:
    with pytest.raises(UsageError) as refused:
        places()
    assert refused.value.message == "--on ssh needs hosts"


@pytest.mark.parametrize("why", ["No space left on device", "Permission denied"])
def test_a_temporary_directory_that_takes_nothing_is_no_matter_of_keys(why: str) -> None:
    cure = ssh.cure("n2", f"distrun cannot be unpacked in /tmp: {why}")
    assert cure.startswith("--bootstrap sends distrun to n2, into its temporary directory")
