"""What bench-comm is asked for, and the reports that it reads: right as typed, wrong in words."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distrun.bandwidth import DEFINITIONS
from distrun.bench.request import Request
from distrun.errors import UsageError
from distrun.spec.bench import BenchRequest, ops_of, read_report, request_of, sizes_of
from tests.unit.bench import REQUEST, a_report, a_row


class Wrong(NamedTuple):
    """Input that makes no sense, and what is said of it."""

    given: Any
    said: str
    hint: str


def refused_as(error: UsageError, wrong: Wrong) -> None:
    assert wrong.said in error.message
    assert "\n" not in error.message
    assert wrong.hint in error.hint
    assert error.hint, f"no hint with {error.message!r}"


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (("8", "64", 2, None), (8, 16, 32, 64)),
        (("8", "63", 2, None), (8, 16, 32)),
        (("8", "8", 2, None), (8,)),
        (("1K", "64KiB", 8, None), (1024, 8192, 65536)),
        (("1m", "1MB", 2, None), (1 << 20,)),
        (("1.5K", "2 G", 1e9, None), (1536,)),
        (("10", "40", 1.5, None), (10, 15, 22, 33)),
        (("1", "4", 1.01, None), (1, 2, 3, 4)),  # each is larger than the last
        (("64", "8", 0, "1M"), (1 << 20,)),  # a list stands for all three
        (("8", "64", 2, "64, 8,1K"), (64, 8, 1024)),
        (("8", "64", 2, "8,8,16"), (8, 16)),
    ],
)
def test_sizes_are_those_asked_for(
    given: tuple[str, str, float, str | None], sizes: tuple[int, ...]
) -> None:
    assert sizes_of(*given) == sizes


WRONG_SIZES = {
    "begin above end": Wrong(("1M", "8", 2, None), "-b 1M is above -e 8", "-b 8 -e 1M"),
    "factor 1": Wrong(("8", "64", 1.0, None), "-f 1 must be above 1", "-f 2"),
    "factor 0": Wrong(("8", "64", 0.0, None), "-f 0 must be above 1", "-f 2"),
    "factor below 0": Wrong(("8", "64", -2.0, None), "-f -2 must be above 1", "-f 2"),
    "factor nan": Wrong(("8", "64", math.nan, None), "-f nan", "-f 2"),
    "factor inf": Wrong(("8", "64", math.inf, None), "-f inf", "-f 2"),
    "too many": Wrong(("1", "1G", 1.0001, None), "makes more than 200 sizes", "-f 2"),
    "no size": Wrong(("soon", "64", 2, None), "'soon' is not a size", "64K"),
    "no unit": Wrong(("8", "64T", 2, None), "'64T' is not a size", "64K"),
    "below 0": Wrong(("-8", "64", 2, None), "'-8' is not a size", "64K"),
    "0": Wrong(("0", "64", 2, None), "size '0' is below 1 byte", ""),
    "empty": Wrong(("", "64", 2, None), "'' is not a size", "64K"),
    "endless": Wrong(("8", "9" * 400, 2, None), "is not a size", ""),
    "empty list": Wrong(("8", "64", 2, ""), "'' is not a size", "64K"),
    "list with a gap": Wrong(("8", "64", 2, "8,,16"), "'' is not a size", "64K"),
}


@pytest.mark.parametrize("name", WRONG_SIZES)
def test_sizes_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        sizes_of(*WRONG_SIZES[name].given)
    refused_as(raised.value, WRONG_SIZES[name])


@pytest.mark.parametrize(
    ("text", "ops"),
    [
        ("all_reduce", ("all_reduce",)),
        ("all_gather, barrier", ("all_gather", "barrier")),
        ("barrier,barrier,reduce,barrier", ("barrier", "reduce")),
        ("all", (*DEFINITIONS, "barrier")),
    ],
)
def test_ops_are_those_asked_for_each_once(text: str, ops: tuple[str, ...]) -> None:
    assert ops_of(text) == ops


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("allreduce", "'allreduce'", "did you mean 'all_reduce'?"),
        ("all_reduce,brodcast", "'brodcast'", "did you mean 'broadcast'?"),
        ("xyzzy", "'xyzzy'", "one of: all_gather, "),
        ("", "''", "one of: all_gather, "),
        ("all,all_reduce", "'all'", ""),
    ],
)
def test_an_op_that_there_is_not_is_refused(text: str, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        ops_of(text)
    refused_as(raised.value, Wrong(text, f"--op {name} cannot be measured", hint))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"redop": "mean", "dtype": "bfloat16"},
        {"redop": "max", "dtype": "uint8", "sizes": (1,)},
        {"mode": "throughput", "backend": "nccl", "places": ("in",), "check": False},
        {"iterations": 1, "warmup": 0, "budget_s": 0.1, "root": 7},
    ],
)
def test_a_request_reaches_the_ranks_as_it_was_made(changes: dict[str, Any]) -> None:
    made = request_of(**{**REQUEST, **changes})
    arrived = Request.from_json(made.model_dump_json())
    assert asdict(arrived) == made.model_dump()
    for name, value in changes.items():
        assert getattr(arrived, name) == value


@pytest.mark.parametrize(("alias", "redop"), [("avg", "mean"), ("product", "prod")])
def test_a_reduction_may_have_the_name_that_c10d_gives_it(alias: str, redop: str) -> None:
    assert request_of(**{**REQUEST, "redop": alias}).redop == redop


WRONG_REQUESTS = {
    "dtype": Wrong({"dtype": "flaot32"}, "--dtype 'flaot32' cannot be", "did you mean 'float32'?"),
    "no dtype": Wrong({"dtype": "complex64"}, "--dtype 'complex64' cannot be measured", ""),
    "float8": Wrong(
        {"dtype": "float8_e4m3fn"}, "--dtype float8_e4m3fn: gloo has no", "--dtype uint8"
    ),
    "redop": Wrong({"redop": "summ"}, "--redop 'summ' is not a reduction", "did you mean 'sum'?"),
    "mean of int32": Wrong(
        {"redop": "mean", "dtype": "int32"}, "--redop mean of int32", "--dtype float32"
    ),
    "avg of uint8": Wrong({"redop": "avg", "dtype": "uint8"}, "--redop mean of uint8", "--redop"),
    "size 3": Wrong({"sizes": (3, 6)}, "size 3 holds no element of float32", "-b 4"),
    "size 7": Wrong({"sizes": (64, 7), "dtype": "int64"}, "size 7 holds no element", "-b 8"),
    "no iteration": Wrong({"iterations": 0}, "-n 0", ""),
    "iterations": Wrong({"iterations": 10**6}, "-n 1000000", ""),
    "warmup": Wrong({"warmup": -1}, "-w -1", ""),
    "mode": Wrong({"mode": "fast"}, "--mode 'fast' cannot be", "latency or throughput"),
    "backend": Wrong({"backend": "mpi"}, "--backend 'mpi' cannot be", "gloo or nccl"),
    "budget 0": Wrong({"budget_s": 0.0}, "--budget 0", ""),
    "budget nan": Wrong({"budget_s": math.nan}, "--budget nan", ""),
    "budget inf": Wrong({"budget_s": math.inf}, "--budget inf", ""),
    "timeout": Wrong({"timeout_s": -1.0}, "--timeout -1", ""),
    "timeout inf": Wrong({"timeout_s": math.inf}, "--timeout inf", ""),
}


@pytest.mark.parametrize("name", WRONG_REQUESTS)
def test_a_request_whose_parts_do_not_go_together_is_refused(name: str) -> None:
    wrong = WRONG_REQUESTS[name]
    with pytest.raises(UsageError) as raised:
        request_of(**{**REQUEST, **wrong.given})
    refused_as(raised.value, wrong)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = a_report(a_row(), a_row(place="in", noisy=True, p99_s=1.0), mode="throughput")
    path = tmp_path / "r.json"
    path.write_text(report.model_dump_json(by_alias=True))
    assert read_report(path) == report
    assert json.loads(path.read_text())["schema"] == 1
    assert isinstance(read_report(path).request, BenchRequest)


def changed(**changes: Any) -> str:
    """Return the text of a report with some of its keys changed; ... takes a key away."""
    whole = {**a_report().model_dump(by_alias=True), **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not ...})


BROKEN: dict[str, Wrong] = {
    "missing": Wrong(None, "cannot be read: No such file or directory", ""),
    "no text": Wrong(b"\xff\xfe", "cannot be read: it is not text", ""),
    "empty": Wrong("", "Invalid JSON", "-o FILE.json writes one"),
    "broken off": Wrong(changed()[:200], "Invalid JSON", "-o FILE.json writes one"),
    "a list": Wrong("[]", "is not a report of bench-comm", "-o FILE.json writes one"),
    "a number": Wrong("3", "is not a report of bench-comm", "-o FILE.json writes one"),
    "nothing in it": Wrong("{}", "schema: Field required", "-o FILE.json writes one"),
    "of another program": Wrong('{"name": "x"}', "schema: Field required", "-o FILE.json"),
    "without schema": Wrong(changed(schema=...), "schema: Field required", "-o FILE.json"),
    "of another schema": Wrong(changed(schema=99), "schema", ""),
    "with a schema in words": Wrong(changed(schema="new"), "schema: ", "-o FILE.json"),
    "without rows": Wrong(changed(rows=...), "rows: Field required", "-o FILE.json"),
    "with a key more": Wrong(changed(speed=1), "speed: Extra inputs", "-o FILE.json"),
    "with a broken row": Wrong(
        changed(rows=[{**a_row().model_dump(), "p50_s": "fast"}]), "rows.0.p50_s: ", "-o FILE.json"
    ),
    "with a time of 0": Wrong(
        changed(rows=[{**a_row().model_dump(), "p50_s": 0.0}]), "rows.0.p50_s: ", "-o FILE.json"
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_report_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.json"
    given = BROKEN[name].given
    if given is not None:
        path.write_bytes(given if isinstance(given, bytes) else given.encode())
    with pytest.raises(UsageError) as raised:
        read_report(path)
    refused_as(raised.value, BROKEN[name])
    assert raised.value.message.startswith(str(path))


def test_a_directory_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read_report(tmp_path)
    refused_as(raised.value, Wrong(None, f"{tmp_path} cannot be read: Is a directory", ""))
