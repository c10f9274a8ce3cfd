"""The tree of errors, their codes, and the nearest name."""

from __future__ import annotations

import pytest

from distrun.errors import (
    DistrunError,
    ExitCode,
    MachineError,
    UsageError,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (DistrunError, 70),
        (UsageError, 2),
        (MachineError, 3),
    ],
)
def test_each_error_has_its_exit_code(kind: type[DistrunError], code: int) -> None:
    error = kind("it is 3, the limit is 2", "--limit 3")
    assert (error.exit_code, error.message, error.hint) == (
        *(code, "it is 3, the limit is 2", "--limit 3"),
    )
    assert str(error) == "it is 3, the limit is 2"
    assert issubclass(kind, DistrunError)


def test_every_kind_of_error_is_in_the_list_above() -> None:
    assert {
        k.__name__ for k in DistrunError.__subclasses__() if k.__module__ == "distrun.errors"
    } == {
        "UsageError",
        "MachineError",
    }


def test_the_exit_codes_are_those_of_the_design() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "USAGE": 2,
        "MACHINE": 3,
        "JOIN_TIMEOUT": 4,
        "NODE_LOST": 5,
        "INTERNAL": 70,
        "TIME_LIMIT": 124,
        "HUNG_UP": 129,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("nodez", ["nodes", "gpus"], "did you mean 'nodes'?"),
        ("fdsp", ["ddp", "fsdp"], "did you mean 'fsdp'?"),
        ("zzz", ["b", "a"], "one of: a, b"),
        ("", ["b", "a"], "one of: a, b"),
    ],
)
def test_the_nearest_name_is_offered_or_all_of_them(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint
