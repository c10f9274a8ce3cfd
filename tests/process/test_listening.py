"""Who can reach a run: on one machine, loopback alone."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from distrun.env import TAG
from tests.conftest import only_run
from tests.process.launched import Launched

SCRIPT = Path(__file__).parents[1] / "scenarios" / "listening.py"
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="127.0.0.2 is an address of its own on Linux"
)


def processes_of(run: str, launcher: int) -> list[psutil.Process]:
    """Return the launcher, what it has started, and whatever else has the run's tag."""
    found = [psutil.Process(launcher), *psutil.Process(launcher).children(recursive=True)]
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG, "").startswith(run) and process not in found:
                found.append(process)
        except psutil.Error:
            pass  # another user's, or gone
    return found


def test_all_that_a_local_run_listens_on_is_on_loopback(
    launched: Callable[..., Launched], tmp_path: Path
) -> None:
    run = launched("--nodes", 2, "--nproc-per-node", 2, SCRIPT)
    run.wait_for(*(f"joined-{rank}" for rank in range(4)))
    port = int((tmp_path / "port").read_text())
    listening = [
        connection.laddr
        for process in processes_of(only_run(tmp_path).name, run.process.pid)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert port in {address.port for address in listening}
    assert len({address.port for address in listening}) > 1  # gloo's are among them
    elsewhere = [a for a in listening if not ipaddress.ip_address(a.ip).is_loopback]
    assert not elsewhere
    socket.create_connection(("127.0.0.1", port), 5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), 5)
    (tmp_path / "go").touch()
    assert run.process.wait(timeout=60) == 0
