"""Asks NCCL's RAS what it counts of a node's ranks: a second witness beside their own records.

RAS is a thread of NCCL in every process of a job. At one port of a machine one of them answers,
for all processes of the job
(https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/ras.html). NCCL answers
in JSON since 2.28.7; what an older one says is dropped. The protocol is that of `ncclras`.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from distrun.agent.gpu_memory import uses_gpus

_ADDRESS = "localhost:28028"
_COMMANDS = b"CLIENT PROTOCOL 2\nTIMEOUT 1\nSET FORMAT json\nSTATUS\n"
_HEAD_LINES = 3
"""Answers to the commands before `STATUS`."""
_LIMIT_S = 2.5
"""Of the whole request: a rank that is stopped costs RAS the second of `TIMEOUT`."""
_TRIES = 4
"""Processes of several jobs may listen at one port: the kernel chooses one of them."""
_MAX_NBYTES = 1 << 24
"""An answer about 8,000 ranks in three communicators; to read it holds the GIL for 1.5 s."""
_MOST_ENTRIES, _MOST_FUNCTIONS, _NAME_CHARS = 256, 16, 64
_NO_ERRORS = 0, 7
"""ncclSuccess and ncclInProgress (ncclResult_t in nccl.h)."""


class RasRequest:
    """One request, in a thread of its own.

    Args:
        environ: The environment that the ranks have: it may name RAS's address.
        pids: The ranks of this node.
    """

    def __init__(self, environ: Mapping[str, str], pids: Collection[int]) -> None:
        self._pids = pids
        self.is_done = True
        """It has been answered, or will not be."""
        self.entries: dict[int, list[dict[str, Any]]] = {}
        """By pid: what RAS tells of it in each communicator."""
        address = environ.get("NCCL_RAS_ADDR") or (_ADDRESS if uses_gpus() else "")
        if address and pids and environ.get("NCCL_RAS_ENABLE") != "0":
            self.is_done = False
            try:
                threading.Thread(target=self._ask, args=(address,), daemon=True).start()
            except RuntimeError:  # this user may have no more threads
                self.is_done = True

    def _ask(self, address: str) -> None:
        deadline = time.monotonic() + _LIMIT_S
        try:
            for _ in range(_TRIES):
                if found := entries_of(_answer(address, deadline), self._pids):
                    self.entries = found
                    return
        except (OSError, ValueError, RecursionError):  # nobody answers, or it is not RAS
            pass
        finally:
            self.is_done = True


def _answer(address: str, deadline: float) -> object:
    """Return what RAS answers.

    Raises:
        OSError: It does not answer before the deadline.
        ValueError: It is no JSON, or no address.
    """
    host, _, port = address.rpartition(":")
    where = host.strip("[]"), int(port)
    with socket.create_connection(where, timeout=max(0.01, deadline - time.monotonic())) as asked:
        asked.sendall(_COMMANDS)
        told = bytearray()
        while data := _received(asked, deadline):
            told += data
            if len(told) > _MAX_NBYTES:
                raise ValueError(f"an answer of more than {_MAX_NBYTES} bytes")
    return json.loads(told.split(b"\n", _HEAD_LINES)[-1])


def _received(asked: socket.socket, deadline: float) -> bytes:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError(f"no whole answer within {_LIMIT_S:g} s")
    asked.settimeout(left_s)
    return asked.recv(1 << 16)


def entries_of(answer: object, pids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Return what an answer tells of processes of this machine, by pid.

    Args:
        answer: The JSON; whoever listens at the port has written it.
        pids: The processes.
    """
    found: dict[int, list[dict[str, Any]]] = {}
    for communicator, rank, is_missing in _ranks(answer):
        with suppress(LookupError, TypeError, AttributeError, ValueError):
            pid = rank["pid"]
            if pid not in pids or not _is_here(rank["host"]):
                continue
            entry = _entry(communicator, rank, is_missing=is_missing)
            if entry and len(own := found.setdefault(pid, [])) < _MOST_ENTRIES:
                own.append(entry)
    return found


def _ranks(answer: object) -> Iterator[tuple[Any, Any, bool]]:
    """Yield communicator, rank, and whether the rank is missing in its answer."""
    with suppress(LookupError, TypeError):
        for communicator in answer["communicators"]:  # type: ignore[index]  # it may be anything
            for rank in communicator["ranks"]:
                yield communicator, rank, False
            for rank in communicator["missing_ranks"]:
                yield communicator, rank, True


def _entry(communicator: Any, rank: Any, *, is_missing: bool) -> dict[str, Any] | None:
    """Return what is told of a rank; None of one that has answered, and has no such communicator:
    NCCL lists it as missing, too."""
    status = rank["status"]
    if is_missing and not (status["unresponsive"] or status["considered_dead"]):
        return None
    counts = [*rank.get("collective_counts", {}).items()][:_MOST_FUNCTIONS]
    return {
        "communicator": f"{communicator['hash']:.{_NAME_CHARS}} "
        f"{communicator['secondary_hash']:.{_NAME_CHARS}}",
        "size": int(communicator["size"]),
        "counts": {str(function)[:_NAME_CHARS]: int(count) for function, count in counts},
        "is_missing": is_missing,
        "has_failed": status.get("async_error", 0) not in _NO_ERRORS,
    }


def _is_here(host: object) -> bool:
    """Return whether an address is of this machine: pids of other machines may be the same.

    Raises:
        ValueError: It is no address.
    """
    import ipaddress  # only when RAS has answered

    address = str(ipaddress.ip_address(str(host)))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True
