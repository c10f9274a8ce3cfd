"""Files that should be dumps of torch's recorder, and are something else."""

from __future__ import annotations

import json
import os
import pickle
import time
from typing import Any

import pytest

from distrun.diagnose.hang.dump_file import parsed
from distrun.diagnose.hang.unpickle import UnpickleError, unpickle
from distrun.errors import UsageError
from tests.unit.diagnose.hang.jobs import answer, entry

PLAIN: dict[str, Any] = {"entries": [], "n": [1, -2, 2**40, 1.5, None, True], "t": ("a", ("b",))}


class Calls:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /nowhere/pwned",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_from_every_binary_protocol(protocol: int) -> None:
    assert unpickle(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("value", [Calls(), {1, 2}, time.struct_time, b"bytes", {3: 4}, {(): 1}])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_anything_but_plain_data_is_refused(value: object, protocol: int) -> None:
    with pytest.raises(UnpickleError):
        unpickle(pickle.dumps([value], protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x02.",
        b"\x80\x02]",
        b"\x80\x02(.",
        b"\x80\x02a.",
        b"\x80\x02u.",
        b"\x80\x02t.",
        b"\x80\x02\x85.",
        b"\x80\x02h\x05.",
        b"\x80\x02q\x05.",
        b"\x80\x02]]a..",
        b"\x80\x02N]a.",
        b"\x80\x02}(X\x01\x00\x00\x00au.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02Q.",
        b"\x80\x02N.trailing",
        pickle.dumps(PLAIN, 2)[:-9],
    ],
)
def test_a_broken_or_hostile_pickle_is_refused_or_harmless(data: bytes) -> None:
    try:
        found = unpickle(data)
    except UnpickleError:
        return
    assert found is None  # a memo of a huge index is only a key here


@pytest.mark.parametrize("depth", [10**4, 10**5])
def test_a_pickle_that_nests_without_limit_does_no_harm(depth: int) -> None:
    data = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    assert type(unpickle(data)) is list
    tuples = b"\x80\x02}" + b"N" + b"\x85" * depth + b"Ns."
    with pytest.raises(UnpickleError, match="a key"):
        unpickle(tuples)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[",
        b"null",
        b"[]",
        b"{}",
        b'{"a": 1}',
        b"[" * 10**5,
        b'{"entries": ' + b"9" * 5000 + b"}",
        b"\x7fELF",
        pickle.dumps([1], 2),
        pickle.dumps({"entries": Calls()}, 2),
        json.dumps(answer([entry(1)])).encode()[:-9],
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_file_that_is_no_dump_is_named(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^x\.json is not a dump of torch's flight recorder: "):
        parsed(data, "x.json")
