"""Ports and names of this machine."""

from __future__ import annotations

import os
import socket

import pytest

from distrun.checks.required import require_port
from distrun.errors import MachineError
from distrun.listen import free_port
from distrun.probe.host import port_problem, resolve


def test_a_free_port_is_no_problem() -> None:
    port = free_port()
    assert port_problem(port) == ""
    require_port(port, "")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", ""])
def test_whoever_listens_on_a_port_is_named_whatever_the_address(address: str) -> None:
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        problem = port_problem(port)
    assert problem.startswith("is in use by another process (")
    assert problem.endswith(f", pid {os.getpid()})")
    with pytest.raises(MachineError) as refused:
        require_port(port, problem)
    assert refused.value.message == f"--master-port {port} {problem}"
    assert refused.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may have every port")
def test_a_port_below_1024_is_not_said_to_be_in_use() -> None:
    assert port_problem(1) in ("", "can be used by root only")


@pytest.mark.parametrize(
    ("name", "address"),
    [("localhost", "127.0.0.1"), ("10.1.2.3", "10.1.2.3"), ("no-such-host.invalid", None)],
)
def test_names_become_addresses(name: str, address: str | None) -> None:
    assert resolve(name) == address


@pytest.mark.parametrize("name", ["a..b", "x" * 80, "", "\u00fc" * 70])
def test_a_name_that_can_be_none_is_none(name: str) -> None:
    assert resolve(name) in (None, "0.0.0.0")
