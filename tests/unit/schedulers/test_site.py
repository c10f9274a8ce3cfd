"""Hosts that are not asked: each has the address that is written for it, and its own ranks."""

from __future__ import annotations

from typing import Any

from distrun.schedulers import site
from distrun.spec.job import Job


def test_a_host_is_reached_at_its_own_address_and_shown_with_its_login() -> None:
    hosts: Any = [
        {"name": "a", "user": "ada", "address": "10.0.0.9", "slots": 4},
        "10.0.0.2:2222",
        "[2001:db8::1]:22",
        "2001:db8::2",
    ]
    found = site.unasked(Job(script="train.py", hosts=hosts))
    assert [(machine.host, machine.address, machine.slots) for machine in found.machines] == [
        ("ada@a", "10.0.0.9", 4),
        ("10.0.0.2:2222", "10.0.0.2", None),
        ("[2001:db8::1]:22", "2001:db8::1", None),
        ("2001:db8::2", "2001:db8::2", None),
    ]
