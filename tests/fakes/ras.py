"""A server in the place of NCCL's RAS: it speaks as src/ras/client_support.cc of NCCL 2.29 does."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FUNCTIONS = "Broadcast", "Reduce", "AllGather", "ReduceScatter", "AllReduce", "SendRecv"


def answer(
    counts: Mapping[int, Mapping[str, int]],
    *,
    pids: Mapping[int, int],
    missing: Mapping[int, int] | None = None,
    unresponsive: bool = True,
    host: str = "127.0.0.1",
    async_error: int = 0,
    name: str = "0x6c8",
) -> dict[str, Any]:
    """Return an answer about one communicator.

    Args:
        counts: What each rank has called.
        pids: The process of each rank.
        missing: Ranks that have not answered about it, and their processes.
        unresponsive: Those do not answer at all.
        host: The address of all.
        async_error: ncclResult_t of the communicator in each rank.
        name: The communicator's hash.
    """
    status = {
        "init_state": 0,
        "async_error": async_error,
        "finalize_called": False,
        "destroy_flag": False,
        "abort_flag": False,
    }
    place = {"host": host, "cuda_dev": 0, "nvml_dev": 0}
    ranks = [
        {"rank": rank, **place, "pid": pids[rank], "status": status}
        | {"collective_counts": {each: called.get(each, 0) for each in FUNCTIONS}}
        for rank, called in counts.items()
    ]
    gone = {"unresponsive": unresponsive, "considered_dead": False}
    left = [
        {"rank": rank, **place, "pid": pid, "status": gone} for rank, pid in (missing or {}).items()
    ]
    communicator = {
        "hash": name,
        "secondary_hash": "0xab:0xcd",
        "size": len(ranks) + len(left),
        "ranks_count": len(ranks),
        "missing_ranks_count": len(left),
        "ranks": ranks,
        "missing_ranks": left,
    }
    return {
        "nccl_version": "2.29.3",
        "cuda_runtime_version": 13000,
        "cuda_driver_version": 13000,
        "timestamp": "2026-11-30 12:00:00",
        "communicators_count": 1,
        "communicators": [communicator],
        "ras": {"collection_time_sec": 0.01, "timeouts_count": len(left)},
    }


class Server(socketserver.ThreadingTCPServer):
    """Listens at a free port of the loopback interface.

    Args:
        told: A file with the answer to `STATUS`.
    """

    allow_reuse_address = daemon_threads = True
    is_old = False
    """As NCCL before 2.28.7, which has no JSON."""

    def __init__(self, told: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Client)
        self.told = told

    @property
    def address(self) -> str:
        """As NCCL_RAS_ADDR has it."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Client(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        for line in self.rfile:
            command = line.decode().strip().lower()
            if command == "status":
                self.wfile.write(self.server.told.read_bytes())
                return
            if command.startswith("client protocol "):
                self.wfile.write(b"SERVER PROTOCOL 2\n")
            elif command == "set format json" and self.server.is_old:
                self.wfile.write(b"ERROR: Unknown command set format json\n")
            elif command.startswith(("timeout ", "set format ")):
                self.wfile.write(b"OK\n")
            else:
                self.wfile.write(f"ERROR: Unknown command {command}\n".encode())


@contextmanager
def serving(told: Path) -> Iterator[Server]:
    """Run a server."""
    with Server(told) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
