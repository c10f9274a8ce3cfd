"""A runs directory that others can write, or that other machines share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distrun.processes import start_time
from tests.conftest import SCENARIOS, only_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
PRINTS = SCENARIOS / "prints.py"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that has ended; made once."""
    place = tmp_path_factory.mktemp("recorded")
    (place / "true.sh").write_text("#!/bin/sh\necho hello\n")
    (place / "true.sh").chmod(0o755)
    words = ("launch", "--nproc-per-node", "1", "--no-python", "./true.sh")
    subprocess.run([sys.executable, "-m", "distrun", *words], cwd=place, check=True, timeout=100)
    return only_run(place)


@pytest.fixture
def ended(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it in the test's own directory."""
    return Path(shutil.copytree(recorded, tmp_path / "runs" / recorded.name))


def forge(run: Path, name: str, **changes: Any) -> Path:
    """Copy a run under another name, with changes to its record."""
    copy = run.with_name(name)
    shutil.copytree(run, copy, symlinks=True)
    record = {**json.loads((copy / "run.json").read_text()), "run_id": name, **changes}
    (copy / "run.json").write_text(json.dumps(record))
    return copy


def names(listed: subprocess.CompletedProcess[str]) -> set[str]:
    assert listed.returncode == 0, listed.stderr
    return {line.split()[0] for line in listed.stdout.splitlines()[1:]}


def broken(run: Path) -> dict[str, str]:
    """Put broken runs beside a good one; return what is said of each."""
    runs = run.parent
    for name in ("fifo", "huge", "deep", "types", "text", "link", "directory"):
        (runs / name).mkdir()
    os.mkfifo(runs / "fifo" / "run.json")
    with open(runs / "huge" / "run.json", "wb") as file:
        file.truncate(1 << 30)
    (runs / "deep" / "run.json").write_text("[" * 100_000)
    (runs / "text" / "run.json").write_bytes(b"\xff\x00")
    (runs / "link" / "run.json").symlink_to("/etc/passwd")
    (runs / "directory" / "run.json").mkdir()
    forge(run, "types2", started_at="soon")
    (runs / "types" / "run.json").write_text("3")
    return {
        "fifo": "it is not a regular file",
        "huge": "it is larger than 16 MiB",
        "deep": "it is nested too deeply",
        "types": "it is not a run record",
        "types2": "its started_at is not of the type float",
        "text": "codec can't decode",
        "link": "it is a symbolic link",
        "directory": "it is not a regular file",
    }


def test_a_broken_record_costs_a_line_and_not_the_command(distrun: Run, ended: Path) -> None:
    said = broken(ended)
    for words in (("ps",), ("ps", "--json"), ("show",), ("logs",), ("ps", "--prune", 5)):
        result = distrun(*words)
        assert result.returncode == 0, result.stderr
        assert len(result.stderr.splitlines()) == len(said), result.stderr
        for name, why in said.items():
            assert any(f"runs/{name}/run.json is not read: " in line and why in line
                       for line in result.stderr.splitlines()), (name, result.stderr)  # fmt: skip
    assert names(distrun("ps")) == {ended.name}
    for name in ("fifo", "types"):
        refused = distrun("show", f"runs/{name}")
        assert refused.returncode == 2
        assert "is not read: " in refused.stderr


def test_a_lone_surrogate_and_control_characters_are_shown_replaced(
    distrun: Run, ended: Path
) -> None:
    words = "a\ud800b\x1b]0;evil\x07\x9b31m\r\u202e"
    forge(ended, "odd", recipe=words, outcome=words, summary=words, git=words, host=words)
    forge(ended, "odd2", ended_at=None, outcome="", exit_code=None, host=words)
    for command in (("ps",), ("show", "odd"), ("show", "odd2"), ("stop", "odd2")):
        result = distrun(*command)
        shown = result.stdout + result.stderr
        assert "a�b�]0;evil��31m" in shown
        assert not [c for c in shown if not c.isprintable() and c != "\n"]
    assert json.loads(distrun("ps", "--json").stdout)


@pytest.mark.root
@needs_root
def test_a_record_of_another_user_is_neither_shown_nor_pruned_nor_stopped(
    distrun: Run, ended: Path
) -> None:
    for name in ("foreign", "foreign-file"):
        os.chown(forge(ended, name) / "run.json", 65534, 65534)
    os.chown(ended.with_name("foreign"), 65534, 65534)
    listed = distrun("ps")
    assert names(listed) == {ended.name}
    assert listed.stderr.count("it belongs to another user (uid 65534)") == 2
    assert distrun("ps", "--prune", 0).returncode == 0
    assert {p.name for p in ended.parent.iterdir()} == {"foreign", "foreign-file"}
    assert distrun("stop", "runs/foreign").returncode == 2


def test_links_are_neither_read_nor_pruned(distrun: Run, ended: Path, tmp_path: Path) -> None:
    outside = forge(ended, "x").rename(tmp_path / "outside")
    (ended.parent / "linked").symlink_to(outside)
    (ended.parent / "dangling").symlink_to(tmp_path / "nowhere")
    (ended / "inside").symlink_to(outside)
    result = distrun("ps", "--prune", 0)
    assert result.returncode == 0
    assert "runs/linked is not read: it is a symbolic link" in result.stderr
    assert not ended.exists()
    assert (outside / "run.json").is_file() and (outside / "logs" / "node0").is_dir()


def test_a_link_in_the_place_of_a_log_or_a_verdict_is_not_followed(
    distrun: Run, ended: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text('{"secret": 1}')
    (ended / "logs" / "node0" / "rank0.log").unlink()
    for place in (ended / "logs" / "node0" / "rank0.log", ended / "verdict.json"):
        place.symlink_to(tmp_path / "secret")
    for words in (("logs",), ("logs", "-f"), ("show",)):
        result = distrun(*words)
        assert result.returncode == 0, result.stderr
        assert "secret" not in result.stdout + result.stderr
    assert "this log cannot be read: it is a symbolic link" in distrun("logs").stderr


@pytest.mark.parametrize("event", ["3", '{"event": 5}', "[" * 100_000])
def test_events_that_are_none_of_ours_are_passed_over(
    distrun: Run, ended: Path, event: str
) -> None:
    (ended / "events.jsonl").write_text(event + "\n")
    result = distrun("logs", "-f")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("distrun: done in ")  # the record has the end


def test_an_event_of_an_end_that_does_not_say_how_is_refused(distrun: Run, ended: Path) -> None:
    (ended / "events.jsonl").write_text('{"event": "ended"}\n')
    result = distrun("logs", "-f")
    assert result.returncode == 2, result.stderr
    assert "a fault of distrun" not in result.stderr


def test_a_verdict_that_is_none_of_ours_costs_a_line(distrun: Run, ended: Path) -> None:
    for verdict in ("{}", '{"file": 5, "traceback": []}', "[]", "[" * 100_000, ""):
        (ended / "verdict.json").write_text(verdict)
        result = distrun("show")
        assert result.returncode == 0, result.stderr
        assert "every rank ended with 0" in result.stdout
        assert len(result.stderr.splitlines()) == verdict.startswith("{"), result.stderr


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    assert child.poll() is None, "a forged record has ended it"
    child.kill()
    child.wait()


def test_a_forged_record_ends_no_other_process(
    distrun: Run, ended: Path, bystander: subprocess.Popen[bytes]
) -> None:
    start = start_time(bystander.pid)
    for pid in (bystander.pid, 0, 1, -bystander.pid, 2**40):  # -1 is tried with signal 0 alone
        forged = {"supervisor_pid": pid, "supervisor_start": start if pid > 1 else ""}
        forge(ended, "forged", ended_at=None, outcome="", exit_code=None, **forged)
        result = distrun("stop", "forged")
        assert result.returncode == 2
        assert "run forged is not running: it is lost" in result.stderr
        shutil.rmtree(ended.with_name("forged"))


@pytest.fixture
def waiting(distrun: Run, tmp_path: Path) -> Iterator[str]:
    """The name of a run that goes on."""
    (tmp_path / "wait.sh").write_text("#!/bin/sh\necho up > up\nexec sleep 60\n")
    (tmp_path / "wait.sh").chmod(0o755)
    words = ("--nproc-per-node", 1, "--no-python", "./wait.sh")
    assert distrun("launch", "--detach", *words).returncode == 0
    wait_until((tmp_path / "up").exists, 30)
    name = only_run(tmp_path).name
    yield name
    distrun("stop", name)


@pytest.mark.root
@needs_root
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="makes namespaces")
@pytest.mark.parametrize(
    ("unshare", "before", "host"),
    [
        (("--pid", "--fork", "--mount-proc"), "", os.uname().nodename),
        (("--uts",), "hostname login2; ", os.uname().nodename),
    ],
)
def test_a_run_elsewhere_is_shown_and_neither_pruned_nor_stopped(
    distrun: Run, command: list[str], tmp_path: Path, waiting: str, unshare: tuple[str, ...],
    before: str, host: str,
) -> None:  # fmt: skip
    if subprocess.run(["unshare", *unshare, "true"], capture_output=True).returncode:
        pytest.skip("this container may not make namespaces")

    def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
        script = f'{before}exec "$@"'
        return subprocess.run(
            ["unshare", *unshare, "sh", "-c", script, "sh", *command, *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    assert f"running on {host}" in elsewhere("ps", "--running").stdout
    (row,) = json.loads(elsewhere("ps", "--json").stdout)
    assert row["state"] == f"running on {host}"
    assert elsewhere("ps", "--prune", "0").stderr == ""
    refused = elsewhere("stop", waiting)
    assert refused.returncode == 2
    assert f"run {waiting} is running on {host}: it cannot be stopped from here" in refused.stderr
    (row,) = json.loads(distrun("ps", "--json").stdout)
    assert row["state"] == "running"


def test_a_run_is_never_lost_between_its_record_and_its_first_word(
    distrun: Run, command: list[str], tmp_path: Path
) -> None:
    """The supervisor is stopped as soon as it is there, so its first word takes long."""
    (tmp_path / "true.sh").write_text("#!/bin/sh\n")
    (tmp_path / "true.sh").chmod(0o755)
    slow = tmp_path / "slow"
    slow.mkdir()
    python = slow / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *supervise/__main__.py*) echo up > {tmp_path}/up;'
        f' read go < {tmp_path}/go;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    os.mkfifo(tmp_path / "go")
    child = subprocess.Popen(
        [sys.executable, "-c",
         "import sys; sys.executable = sys.argv.pop(1)\nfrom distrun.cli.main import main; main()",
         python, "launch", "--nproc-per-node", "1", "--no-python", "./true.sh"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_until((tmp_path / "up").exists, 30)
    wait_until(lambda: list((tmp_path / "runs").glob("*/run.json")), 30)
    (row,) = json.loads(distrun("ps", "--json").stdout)
    assert row["state"] == "running"
    assert distrun("ps", "--prune", 0).returncode == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1
    (tmp_path / "go").write_text("now\n")
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0, said


def test_stop_reaches_a_run_of_this_machine(distrun: Run, tmp_path: Path, waiting: str) -> None:
    stopped = distrun("stop", waiting)
    assert stopped.returncode == 0, stopped.stderr
    record = json.loads((only_run(tmp_path) / "run.json").read_text())
    assert record["exit_code"] == 128 + signal.SIGTERM
    assert record["uid"] == os.getuid() and record["host"] == os.uname().nodename


def test_what_a_rank_says_of_its_error_reaches_the_screen_without_control_characters(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "\x1b[2Jt.py").write_text(
        "print('\\x1b[32mgreen\\x1b[0m', flush=True)\n"
        "raise ValueError('a\\x1b]0;evil\\x07b\\r\\ndistrun: done in 3 s\\x9b')\n"
    )
    result = distrun("launch", "--nproc-per-node", 1, "--max-restarts", 1, "\x1b[2Jt.py")
    assert result.returncode == 1
    assert "\x1b[32mgreen\x1b[0m\n" in result.stdout, "its own output is the user's"
    shown = distrun("show").stdout
    for text in (result.stderr, shown, distrun("ps").stdout):
        assert not [c for c in text if not c.isprintable() and c != "\n"], text
    assert "ValueError: a�]0;evil�b�" in result.stderr
    assert "ValueError: a�]0;evil�b" in shown
    assert not [x for x in result.stderr.splitlines() if x.startswith("distrun: done")]
