"""The store of the agents: at one address, and nowhere else."""

from __future__ import annotations

import errno
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from distrun.agent import stub_rendezvous
from distrun.agent.engine import parse
from distrun.agent.rendezvous import BoundRendezvous
from distrun.listen import listen_at
from tests.conftest import wait_until


@pytest.fixture(autouse=True)
def own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchrun's parser, which makes a directory for logs, make it there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def has_ipv6() -> bool:
    try:
        listen_at("::1", 0).close()
    except OSError:
        return False
    return True


def rendezvous(
    address: str, port: int, node_rank: int = 0, nnodes: int = 1, timeout_s: int = 10
) -> BoundRendezvous:
    config, _ = parse(
        [
            f"--nnodes={nnodes}",
            f"--node-rank={node_rank}",
            f"--master-addr={address}",
            f"--master-port={port}",
            "--rdzv-id=a run",
            f"--rdzv-conf=timeout={timeout_s}",
            "train.py",
        ]
    )
    return BoundRendezvous(config)


def free_port(address: str) -> int:
    with listen_at(address, 0) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("127.0.0.1", ["127.0.0.2", "::1"]),
        ("127.0.0.3", ["127.0.0.1", "127.0.0.2"]),
        pytest.param(
            "::1",
            ["127.0.0.1"],
            marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here"),
        ),
    ],
)
def test_the_store_is_reached_at_its_address_alone(address: str, others: list[str]) -> None:
    port = free_port(address)
    info = rendezvous(address, port).next_rendezvous()
    info.store.set("key", "value")
    assert info.store.get("key") == b"value"
    assert info.bootstrap_store_info.master_addr == address
    socket.create_connection((address, port), 5).close()
    for other in others:
        with pytest.raises(OSError):  # refused; without IPv6 there is no such address
            socket.create_connection((other, port), 5)


def test_two_nodes_meet_whoever_comes_first() -> None:
    port = free_port("127.0.0.1")
    met = {}

    def join(node_rank: int) -> None:
        met[node_rank] = rendezvous("127.0.0.1", port, node_rank, 2).next_rendezvous()

    second = threading.Thread(target=join, args=(1,), daemon=True)
    second.start()
    join(0)
    second.join(10)
    assert {rank: (info.rank, info.world_size) for rank, info in met.items()} == {
        0: (0, 2),
        1: (1, 2),
    }
    met[0].store.set("from", "the head")
    assert met[1].store.get("from") == b"the head"


@pytest.fixture
def store_asked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a node that is not the head has done: each connection, and the first of the store."""
    done: list[str] = []
    connect = socket.create_connection

    def connecting(*args: Any, **more: Any) -> socket.socket:
        done.append("connects")
        return connect(*args, **more)

    def store(*args: Any, **more: Any) -> Any:
        done.append("asks for the store")
        raise dist.DistNetworkError("no store in this test")

    monkeypatch.setattr(socket, "create_connection", connecting)
    monkeypatch.setattr(dist, "TCPStore", store)
    return done


def test_a_node_asks_for_the_store_when_the_head_listens(store_asked_for: list[str]) -> None:
    port = free_port("127.0.0.1")

    def join() -> None:
        with pytest.raises(dist.DistNetworkError):
            rendezvous("127.0.0.1", port, 1, 2).next_rendezvous()

    node = threading.Thread(target=join, daemon=True)
    node.start()
    wait_until(lambda: len(store_asked_for) >= 3)
    assert set(store_asked_for) == {"connects"}
    with listen_at("127.0.0.1", port):
        node.join(10)
    assert store_asked_for[-1] == "asks for the store"


@pytest.mark.parametrize("address", ["127.0.0.1", "no-such-host.invalid"])
def test_torch_says_what_is_wrong_with_a_head_that_never_listens(
    store_asked_for: list[str], address: str
) -> None:
    with pytest.raises(dist.DistNetworkError):
        rendezvous(address, free_port("127.0.0.1"), 1, 2, timeout_s=1).next_rendezvous()
    assert store_asked_for[-1] == "asks for the store"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as refused:
            rendezvous("127.0.0.1", port).next_rendezvous()
    assert refused.value.errno == errno.EADDRINUSE
    text = f"EADDRINUSE: cannot listen at 127.0.0.1 port {port}: Address already in use"
    assert str(refused.value).endswith(text)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(OSError, match=r"EADDRNOTAVAIL: cannot listen at 192\.0\.2\.1 port 29500: "):
        rendezvous("192.0.2.1", 29500).next_rendezvous()


def test_the_nodes_of_a_simulation_can_read_from_a_head_whose_thread_has_ended() -> None:
    port = free_port("127.0.0.1")
    head, other = (stub_rendezvous.Node(rank, 2, 3, port) for rank in (0, 1))
    head.start()
    store = BoundRendezvous(other._config).next_rendezvous().store
    store.set("role/1", "3")
    head.join(30)
    assert store.get("ranks/1") == b"3"
