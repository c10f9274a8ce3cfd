"""NCCL's RAS is asked for the ranks of a node; who else listens at its port does no harm."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from distrun.agent.ras import RasRequest, entries_of
from tests.fakes.ras import Server, answer, serving

OWN = os.getpid()
OTHER = 1 << 30
"""No pid of Linux."""
CALLED = {0: {"AllReduce": 7}, 1: {"AllReduce": 6}}


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "answer.json"


@pytest.fixture
def server(told: Path) -> Iterator[Server]:
    with serving(told) as running:
        yield running


def asked(address: str, **environ: str) -> dict[int, list[dict[str, Any]]]:
    request = RasRequest({"NCCL_RAS_ADDR": address, **environ}, {OWN})
    limit = time.monotonic() + 20
    while not request.is_done:
        assert time.monotonic() < limit
        time.sleep(0.01)
    return request.entries


def test_what_ras_counts_of_the_own_ranks_is_kept(server: Server, told: Path) -> None:
    told.write_text(json.dumps(answer(CALLED, pids={0: OTHER, 1: OWN}), indent=2))
    (entry,) = asked(server.address)[OWN]
    assert (entry["size"], entry["counts"]["AllReduce"], entry["is_missing"]) == (2, 6, False)
    assert not entry["has_failed"]


def test_a_rank_that_ras_does_not_reach_is_told(server: Server, told: Path) -> None:
    told.write_text(json.dumps(answer({0: {}}, pids={0: OTHER}, missing={1: OWN})))
    (entry,) = asked(server.address)[OWN]
    assert entry["is_missing"]
    assert not entry["counts"]


def test_a_rank_that_has_no_such_communicator_is_not_missing() -> None:
    told = answer({0: {}}, pids={0: OTHER}, missing={1: OWN}, unresponsive=False)
    assert entries_of(told, {OWN}) == {}


@pytest.mark.parametrize(("error", "has_failed"), [(0, False), (7, False), (1, True), (6, True)])
def test_an_error_of_nccl_is_told_and_an_operation_in_progress_is_none(
    error: int, has_failed: bool
) -> None:
    told = answer(CALLED, pids={0: OTHER, 1: OWN}, async_error=error)
    assert entries_of(told, {OWN})[OWN][0]["has_failed"] is has_failed


@pytest.mark.parametrize(
    "other",
    [
        {"pids": {0: OTHER, 1: OTHER + 1}},
        {"pids": {0: OTHER, 1: OWN}, "host": "192.0.2.7"},
        {"pids": {0: OTHER, 1: OWN}, "host": "2001:db8::7"},
        {"pids": {0: OTHER, 1: OWN}, "host": "unknown"},
    ],
    ids=["another job", "another machine", "another machine by IPv6", "no address"],
)
def test_what_is_told_of_others_is_dropped(
    server: Server, told: Path, other: dict[str, Any]
) -> None:
    told.write_text(json.dumps(answer(CALLED, **other)))
    assert asked(server.address) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "NCCL version 2.27.3 compiled with CUDA 12.9\n",
        "[" * 100_000,
        "null",
        "[]",
        '{"communicators": 5}',
        '{"communicators": [{"ranks": [1], "missing_ranks": {}}]}',
        '{"communicators": [{"ranks": [{"pid": [], "host": []}], "missing_ranks": []}]}',
        '{"communicators": [{"ranks": [{"pid": OWN, "host": ""}], "missing_ranks": []}]}',
        '{"communicators": [{"ranks": [{"pid": OWN, "host": "localhost"}], "missing_ranks": []}]}',
        '{"communicators": [{"ranks": [{"pid": OWN, "host": "::1"}], "missing_ranks": []}]}',
    ],
)
def test_what_is_no_answer_of_ras_is_dropped(server: Server, told: Path, text: str) -> None:
    told.write_text(text.replace("OWN", str(OWN)))
    assert asked(server.address) == {}


def test_an_old_nccl_that_has_no_json_tells_nothing(server: Server, told: Path) -> None:
    server.is_old = True
    told.write_text("NCCL version 2.27.3 compiled with CUDA 12.9\n\nJob summary\n===========\n")
    assert asked(server.address) == {}


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:x", "[::1]:1", "127.0.0.1:1"])
def test_an_address_at_which_nobody_answers_tells_nothing(address: str) -> None:
    assert asked(address) == {}


def test_names_and_counts_of_an_answer_are_cut() -> None:
    told = answer(CALLED, pids={0: OTHER, 1: OWN}, name="0x" + "f" * 100_000)
    told["communicators"][0]["ranks"][1]["collective_counts"] = {
        f"{n}" + "x" * 1000: n for n in range(1000)
    }
    assert len(json.dumps(entries_of(told, {OWN}))) < 3000


@pytest.mark.parametrize("says", [b"", b"."])
def test_a_listener_that_never_ends_its_answer_ends_the_request(says: bytes) -> None:
    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            while not over.wait(0.05):
                client.sendall(says)

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accept = threading.Thread(target=lambda: serve(listener.accept()[0]), daemon=True)
        accept.start()
        assert asked(f"127.0.0.1:{listener.getsockname()[1]}") == {}
        over.set()
        accept.join(10)


def test_ras_that_the_environment_switches_off_is_not_asked(server: Server, told: Path) -> None:
    told.write_text(json.dumps(answer(CALLED, pids={0: OTHER, 1: OWN})))
    assert asked(server.address, NCCL_RAS_ENABLE="0") == {}
