"""A launch in the pod of a TrainJob tells Kubeflow how far it is, and is not held up by that."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from distrun.api.trainjob_progress import CA, TOKEN, URL, TrainJobProgress

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate"),
]


class StatusServer:
    """What Kubeflow's controller listens with."""

    def __init__(self, url: str, environ: dict[str, str]) -> None:
        self.url, self.environ = url, environ
        self.got: list[tuple[str, Any]] = []
        self.code = 200


@contextmanager
def status_server(tmp_path: Path) -> Iterator[StatusServer]:
    """Listen with TLS and a certificate of our own."""
    key, cert, token = (tmp_path / name for name in ("key", "ca.crt", "token"))
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    token.write_text("first\n")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.got.append((self.headers["Authorization"], json.loads(body)))
            self.send_response(server.code)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        url = f"https://localhost:{listening.server_port}/status"
        server = StatusServer(url, {URL: url, TOKEN: str(token), CA: str(cert)})
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield server
        listening.shutdown()
        thread.join()


def metrics(step: int, total: int | None = 100, *, rank: int = 0, **values: Any) -> dict[str, Any]:
    event = {"event": "metrics", "rank": rank, "time": 1000.0 + step, "step": step}
    return {**event, "total_steps": total, "values": values}


def statuses(server: StatusServer) -> list[Any]:
    return [body["trainerStatus"] for _, body in server.got]


def test_percentage_time_left_and_metrics_are_sent(tmp_path: Path) -> None:
    with status_server(tmp_path) as server:
        progress = TrainJobProgress(server.environ, every_s=0)
        for step in (10, 20):
            progress.take(metrics(step, loss=0.5, name="x", bad=float("nan")))
        progress.take(metrics(99, rank=1))
        progress.end(0)
        first, second, last = statuses(server)
        assert first["progressPercentage"] == 10
        assert (second["progressPercentage"], second["estimatedRemainingSeconds"]) == (20, 80)
        assert second["metrics"] == [{"name": "loss", "value": "0.5"}]
        assert (last["progressPercentage"], last["estimatedRemainingSeconds"]) == (100, 0)
        assert datetime.strptime(last["lastUpdatedTime"], "%Y-%m-%dT%H:%M:%SZ")
        assert {token for token, _ in server.got} == {"Bearer first"}


def test_a_run_that_failed_is_not_at_100_per_cent(tmp_path: Path) -> None:
    with status_server(tmp_path) as server:
        progress = TrainJobProgress(server.environ)
        for step in range(50):
            progress.take(metrics(step))
        progress.end(1)
        assert [each["progressPercentage"] for each in statuses(server)] == [0, 49]


def test_a_token_that_was_renewed_is_read_again(tmp_path: Path) -> None:
    with status_server(tmp_path) as server:
        progress = TrainJobProgress(server.environ, every_s=0)
        (tmp_path / "token").write_text("second")
        progress.take(metrics(1))
        progress.end(0)
        assert {token for token, _ in server.got} == {"Bearer second"}


def test_a_server_that_refuses_or_cannot_be_trusted_changes_nothing(tmp_path: Path) -> None:
    with status_server(tmp_path) as server:
        server.code = 500
        for environ in (
            server.environ,
            {**server.environ, TOKEN: str(tmp_path / "none")},
            {**server.environ, CA: ""},
            {**server.environ, URL: "not a url"},
            {**server.environ, URL: "https://localhost:1/"},
        ):
            progress = TrainJobProgress(environ, every_s=0)
            progress.take(metrics(1, None, loss=1))
            progress.end(0)
        assert len(server.got) == 2
        assert "progressPercentage" not in statuses(server)[0]


def test_elsewhere_nothing_is_sent() -> None:
    progress = TrainJobProgress({})
    progress.take(metrics(1))
    progress.end(0)
    assert not [thread for thread in threading.enumerate() if "_post_all" in thread.name]
