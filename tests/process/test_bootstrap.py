"""`--bootstrap`: distrun runs where only torch is, and is gone afterwards."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distrun.nodes import conversation
from distrun.nodes.boot import line_for_sh
from distrun.nodes.conversation import Conversation
from distrun.nodes.package import package
from distrun.processes import descendants
from distrun.wire import Message
from tests.conftest import wait_until
from tests.process.torch_only import make_interpreter, site_of

FAKES = Path(__file__).parents[1] / "fakes"
SCRIPT = """
import importlib.util, os, sys
import torch, torch.distributed as dist
import distrun.train

dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
for name in ("psutil", "pynvml", "pydantic", "typer", "rich"):
    assert importlib.util.find_spec(name) is None, name
print("distrun of", distrun.train.__file__, "last", sys.path[-1], flush=True)
"""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def torch_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a host that has torch but no distrun."""
    return make_interpreter(tmp_path_factory.mktemp("torch_only") / "venv")


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files of the host."""
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "there"))
    return tmp_path / "there"


class Probe:
    """A probe that was sent through its standard input."""

    def __init__(self, python: Path) -> None:
        line = line_for_sh("distrun.probe", ["--serve"], str(python), bootstrap=True)
        self.talk, self.child = conversation.start(["sh", "-c", line], bootstrap=True)

    def answer(self) -> Message:
        """Return its next message; fail if it ends before."""
        found = _next(self.talk)
        assert found is not None, self.talk.words
        return found

    def end(self) -> None:
        self.talk.close()
        self.child.wait(20)


def _next(talk: Conversation) -> Message | None:
    with selectors.DefaultSelector() as selector:
        selector.register(talk.messages_fd, selectors.EVENT_READ)
        while True:
            talk.flush()
            if selector.select(0.02):
                if (found := talk.read()) is None:
                    return None
                if found:
                    return found[0][0]


@pytest.fixture
def probe(torch_only: Path) -> Iterator[Probe]:
    started = Probe(torch_only)
    yield started
    started.end()


def test_the_probe_reads_the_machine_with_the_standard_library_alone(
    probe: Probe, there: Path
) -> None:
    node = probe.answer()
    assert node["problem"] == "" and node["software"]["torch"]
    assert node["host"]["missing"].get("nics") is None
    assert all("addresses" not in nic["missing"] for nic in node["host"]["nics"])
    (package_there,) = there.iterdir()
    assert package_there.stat().st_mode & 0o777 == 0o700
    probe.end()
    assert not [*there.iterdir()]


def test_a_probe_that_is_terminated_leaves_nothing(probe: Probe, there: Path) -> None:
    probe.answer()
    probe.child.terminate()  # the process that waits for it
    assert probe.child.wait(20) == 128 + signal.SIGTERM
    assert not [*there.iterdir()]


def test_a_probe_that_is_killed_leaves_nothing(probe: Probe, there: Path) -> None:
    probe.answer()
    (pid,) = descendants(probe.child.pid)
    os.kill(pid, signal.SIGKILL)
    assert probe.child.wait(20) == 128 + signal.SIGKILL
    assert not [*there.iterdir()]


@pytest.mark.parametrize("nbytes", [0, 5, 5000])
def test_a_connection_that_is_cut_before_the_end_of_the_package_leaves_nothing(
    torch_only: Path, there: Path, nbytes: int
) -> None:
    line = line_for_sh("distrun.probe", [], str(torch_only), bootstrap=True)
    part = package()[:nbytes]
    done = subprocess.run(["sh", "-c", line], input=part, capture_output=True, timeout=20)
    assert not done.stdout and not [*there.iterdir()]


def test_signs_of_life_may_come_within_the_package(torch_only: Path, there: Path) -> None:
    line = line_for_sh("distrun.probe", ["--quick"], str(torch_only), bootstrap=True)
    data = package()
    data = b"\0" + b"\0".join(data[at : at + 1000] for at in range(0, len(data), 1000))
    done = subprocess.run(["sh", "-c", line], input=data, capture_output=True, timeout=20)
    assert b'"schema"' in done.stdout, done.stderr
    assert not [*there.iterdir()]


def test_a_full_disk_is_told_in_a_line(torch_only: Path, there: Path) -> None:
    line = line_for_sh("distrun.probe", [], str(torch_only), bootstrap=True)
    command = ["sh", "-c", f"ulimit -f 8; {line}"]
    done = subprocess.run(command, input=package(), capture_output=True, timeout=20)
    assert done.stderr.decode() == f"distrun cannot be unpacked in {there}: File too large\n"
    assert not [*there.iterdir()]


def test_a_python_that_is_too_old_is_told() -> None:
    code = (
        "import sys; sys.version_info = (3, 8, 1)\n"
        "from distrun.agent.unpack import run; run(None, '', [])"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.stderr == f"{sys.executable} is Python 3.8; distrun needs 3.10\n"


# --- launches ------------------------------------------------------------------------------


@pytest.fixture
def environ() -> dict[str, str]:
    """An environment where ssh leads back to this machine."""
    return {**os.environ, "PATH": f"{FAKES / 'ssh'}:{os.environ['PATH']}"}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_script_trains_where_distrun_is_not_installed(
    distrun: Run, environ: dict[str, str], torch_only: Path, tmp_path: Path, method: str
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    there = tmp_path / "there"
    words = ("--hosts", "localhost", "--python", torch_only, "--nproc-per-node", "2")
    words = (*words, "--bootstrap", "--start-method", method, "train.py")
    result = distrun("launch", *words, env=environ, timeout_s=90)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "distrun of" in line]
    assert len(lines) == 2
    for line in lines:
        assert f"distrun of {there}/distrun-boot-" in line
        assert f"last {there}/distrun-boot-" in line  # it hides nothing of the user's
    wait_until(lambda: not [*there.glob("distrun-boot-*")], 15, "the end of the package")


def test_another_distrun_that_is_installed_there_is_not_used(
    distrun: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    python = make_interpreter(tmp_path / "venv")
    other = site_of(python) / "distrun"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the installed one')\n")
    (tmp_path / "train.py").write_text(SCRIPT)
    words = ("--hosts", "localhost", "--python", python, "--nproc-per-node", "1", "--bootstrap")
    result = distrun("launch", *words, "train.py", env=environ, timeout_s=90)
    assert result.returncode == 0, result.stderr
    assert f"distrun of {tmp_path / 'there'}/distrun-boot-" in result.stdout


def test_a_check_reads_a_machine_without_distrun(
    distrun: Run, environ: dict[str, str], torch_only: Path, there: Path
) -> None:
    words = ("--hosts", "localhost", "--python", torch_only, "--bootstrap", "--json")
    result = distrun("check", *words, env=environ)
    assert result.returncode in (0, 1), result.stderr
    wait_until(lambda: not [*there.iterdir()], 15, "the end of the package")
