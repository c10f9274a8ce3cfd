"""`--sync`: the project arrives, over an ssh that leads back to this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from distrun import silence
from distrun.errors import MachineError
from distrun.nodes import sending
from distrun.nodes.project import read_project
from distrun.schedulers import ssh
from distrun.schedulers.place import Place
from distrun.schedulers.sync import sync
from tests.conftest import wait_until
from tests.process.torch_only import make_interpreter

Run = Callable[..., subprocess.CompletedProcess[str]]
FAKES = Path(__file__).parents[1] / "fakes"
HOSTILE = ["-rf", os.fsdecode(b"we\xffird"), "two\nlines", " ", "$(touch owned)", "sub/'q\""]
pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a work tree of git, with an ssh of ours."""
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    (here / "train.py").write_text("print('trained')\n")
    (here / "sub/lib.py").write_text("x = 1\n")
    (here / "noise.log").write_text("not sent")
    (here / ".gitignore").write_text("*.log\n")
    subprocess.run(["git", "init", "-q", here], check=True, timeout=30)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{FAKES / 'ssh'}:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    return here


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The directory on the hosts."""
    return tmp_path / "not yet/there"


def stand_in(tmp_path: Path, program: str, script: str) -> None:
    (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / program).chmod(0o755)


def synced(there: Path | None, *hosts: str) -> list[str]:
    """Send the project; return what was told."""
    told: list[str] = []
    found = read_project(Path("train.py"), there, Path("runs"))
    places = [Place(host, host) for host in hosts or ("localhost",)]
    sync(found, places, ssh, str(there or Path.cwd()), told.append)
    return sorted(told)


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_the_project_arrives_and_then_only_what_has_changed(there: Path) -> None:
    assert synced(there) == ["localhost: 3 files, 29 bytes sent, 0 unchanged"]
    assert set(contents(there)) == {"train.py", "sub/lib.py", ".gitignore"}
    assert synced(there) == ["localhost: 0 files, 0 bytes sent, 3 unchanged"]
    Path("train.py").write_text("print('better')\n")
    assert synced(there) == ["localhost: 1 file, 16 bytes sent, 2 unchanged"]
    assert (there / "train.py").read_text() == "print('better')\n"


def test_nothing_of_the_users_is_deleted(there: Path) -> None:
    synced(there)
    (there / "checkpoint.pt").write_text("theirs")
    Path("sub/lib.py").unlink()
    synced(there)
    assert {"checkpoint.pt", "sub/lib.py"} <= set(contents(there))


def test_files_with_any_name_arrive(there: Path) -> None:
    for name in HOSTILE:
        Path(name).write_text(name.encode(errors="replace").decode())
    synced(there)
    assert {name for name in HOSTILE if (there / name).is_file()} == set(HOSTILE)
    assert not (there / "owned").exists() and not Path("/owned").exists()


def test_links_arrive_as_links_and_programs_can_be_run(there: Path) -> None:
    Path("link").symlink_to("sub/lib.py")
    Path("run.sh").write_text("#!/bin/sh\n")
    Path("run.sh").chmod(0o755)
    synced(there)
    assert str((there / "link").readlink()) == "sub/lib.py"
    assert os.access(there / "run.sh", os.X_OK)


def test_hosts_are_served_at_once_and_each_is_told(there: Path) -> None:
    told = synced(there, "localhost", "127.0.0.1", "noisy")
    assert [line.partition(":")[0] for line in told] == ["127.0.0.1", "localhost", "noisy"]
    assert contents(there)["train.py"] == b"print('trained')\n"


def test_of_many_hosts_only_the_sum_is_told(there: Path) -> None:
    (line,) = synced(there, *(f"host{number}" for number in range(17)))
    assert line.startswith("17 hosts: ")


def test_a_host_that_fails_is_named_with_its_cure(there: Path) -> None:
    with pytest.raises(MachineError) as refused:
        synced(there, "localhost", "refused")
    assert str(refused.value) == (
        f"the project cannot be sent to {str(there)!r} on refused: ssh: connect to host refused"
        " port 22: Connection refused"
    )
    assert "is sshd running on refused?" in refused.value.hint
    assert (there / "train.py").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda there: there.write_text("x"), "there': File exists"),
        (lambda there: (there / "train.py").mkdir(parents=True), "'train.py' is a directory there"),
        (
            lambda there: (there.mkdir(), (there / "sub").symlink_to("/tmp")),
            "'sub' is a link there",
        ),
        (lambda there: (there.mkdir(), (there / "sub").touch()), "'sub' is a file there"),
    ],
)
def test_what_is_in_the_way_there_is_told(there: Path, make: object, words: str) -> None:
    there.parent.mkdir()
    make(there)  # type: ignore[operator]
    with pytest.raises(MachineError, match=words):
        synced(there)


def test_a_full_disk_is_told_and_leaves_the_old_file(there: Path, tmp_path: Path) -> None:
    synced(there)
    Path("sub/lib.py").write_bytes(bytes(500_000))
    stand_in(tmp_path, "ssh", f'ulimit -f 100; exec {FAKES / "ssh/ssh"} "$@"')
    with pytest.raises(MachineError, match="on localhost: File too large"):
        synced(there)
    assert contents(there)["sub/lib.py"] == b"x = 1\n"
    assert len(contents(there)) == 3


@pytest.mark.parametrize("nbytes", [0, 300, 100_000])
def test_a_connection_that_is_cut_leaves_whole_files_only(
    there: Path, tmp_path: Path, nbytes: int
) -> None:
    synced(there)
    Path("sub/lib.py").write_bytes(bytes(500_000))
    stand_in(tmp_path, "ssh", f'stdbuf -o0 head -c {nbytes} | {FAKES / "ssh/ssh"} "$@"')
    with pytest.raises(MachineError, match=r"the connection ended|it ended with exit code"):
        synced(there)
    assert contents(there)["sub/lib.py"] == b"x = 1\n"
    assert len(contents(there)) == 3


def test_a_host_that_says_nothing_is_given_up(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LOST_AFTER_S", 1.0)
    stand_in(tmp_path, "ssh", "exec 3>&1; exec cat > /dev/null")
    with pytest.raises(MachineError, match="on localhost: no answer within"):
        synced(there)


def test_a_host_that_closes_its_output_is_given_up(there: Path, tmp_path: Path) -> None:
    stand_in(tmp_path, "ssh", "echo 'out of order' >&2; exec cat > /dev/null")
    with pytest.raises(MachineError, match="on localhost: out of order"):
        synced(there)


def test_a_file_that_becomes_shorter_meanwhile_is_told(there: Path) -> None:
    found = read_project(Path("train.py"), there, Path("runs"))
    Path("sub/lib.py").write_text("")
    with pytest.raises(MachineError, match=r"'sub/lib.py' cannot be sent: it was changed"):
        sync(found, [Place("a", "a")], ssh, str(there), lambda _: None)
    assert "sub/lib.py" not in contents(there)


# --- onto itself ---------------------------------------------------------------------------


def test_the_project_is_not_sent_onto_itself(project: Path) -> None:
    before = contents(project)
    (line,) = synced(None)
    assert line == f"localhost: {str(project)!r} is the project itself: nothing is sent"
    assert contents(project) == before


def test_a_directory_that_hosts_share_is_left_as_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "directory_id", lambda _: ["another machine", 1, 2])
    before = contents(project)
    assert synced(None) == ["localhost: 0 files, 0 bytes sent, 3 unchanged"]
    assert contents(project) == before


# --- rsync ---------------------------------------------------------------------------------


def logged_rsync(tmp_path: Path) -> Path:
    """Put the real rsync behind one that notes its words; return the notes."""
    if (real := shutil.which("rsync")) is None:
        pytest.skip("needs rsync")
    stand_in(tmp_path, "rsync", f'echo "$@" >> {tmp_path}/rsynced; exec {real} "$@"')
    return tmp_path / "rsynced"


@pytest.mark.parametrize("name", ["plain", "with blanks", "it's"])
def test_rsync_brings_large_files_if_both_ends_have_it(tmp_path: Path, name: str) -> None:
    notes = logged_rsync(tmp_path)
    for hostile in HOSTILE:
        Path(hostile).write_bytes(os.urandom(300_000))
    there = tmp_path / name
    assert synced(there) == ["localhost: 9 files, 1.8 MB sent, 0 unchanged"]
    assert "--files-from=-" in notes.read_text()
    assert {h: (there / h).read_bytes() for h in HOSTILE} == {
        h: Path(h).read_bytes() for h in HOSTILE
    }
    assert synced(there) == ["localhost: 0 files, 0 bytes sent, 9 unchanged"]


def test_small_files_do_without_rsync(there: Path, tmp_path: Path) -> None:
    notes = logged_rsync(tmp_path)
    synced(there)
    assert not notes.exists()


def test_where_rsync_fails_the_archive_is_sent(there: Path, tmp_path: Path) -> None:
    stand_in(tmp_path, "rsync", "exit 12")
    Path("data.bin").write_bytes(bytes(2_000_000))
    assert synced(there) == ["localhost: 4 files, 2.0 MB sent, 0 unchanged"]
    assert (there / "data.bin").stat().st_size == 2_000_000


# --- launches ------------------------------------------------------------------------------


def test_a_launch_sends_the_project_first(distrun: Run, project: Path, there: Path) -> None:
    words = ("--hosts", "localhost", "--sync", "--workdir", there, "--nproc-per-node", "1")
    result = distrun("launch", *words, "train.py", cwd=project)
    assert result.returncode == 0, result.stderr
    assert "localhost: 3 files, 29 bytes sent, 0 unchanged" in result.stderr
    assert "trained" in result.stdout


def test_a_dry_run_sends_nothing(distrun: Run, project: Path, there: Path) -> None:
    words = ("--hosts", "localhost", "--sync", "--workdir", there, "--dry-run")
    assert distrun("launch", *words, "train.py", cwd=project).returncode == 0
    assert not there.exists()


def test_a_project_that_does_not_arrive_stops_the_launch(
    distrun: Run, project: Path, there: Path
) -> None:
    there.parent.mkdir()
    there.write_text("in the way")
    words = ("--hosts", "localhost", "--sync", "--workdir", there)
    result = distrun("launch", *words, "train.py", cwd=project)
    assert result.returncode == 3
    assert "the project cannot be sent to" in result.stderr
    assert not (project / "runs").exists() or not [*(project / "runs").iterdir()]


def test_a_host_without_torch_is_refused_before_anything_is_sent(
    distrun: Run, project: Path, there: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    words = ("--hosts", "localhost", "--python", python, "--bootstrap", "--sync")
    result = distrun("launch", *words, "--workdir", there, "train.py", cwd=project)
    assert result.returncode == 3
    assert "torch is not installed on localhost" in result.stderr
    assert not there.exists()


def test_the_home_directory_is_refused_before_a_host_is_reached(
    distrun: Run, project: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    environ = {**os.environ, "HOME": str(project), "FAKE_LOG": str(log)}
    words = ("--hosts", "localhost", "--sync", "train.py")
    result = distrun("launch", *words, cwd=project, env=environ)
    assert result.returncode == 2
    assert "--sync would send your home directory" in result.stderr
    assert not log.exists()


def test_distrun_and_the_project_travel_together(
    distrun: Run, project: Path, there: Path, tmp_path: Path
) -> None:
    python = make_interpreter(tmp_path / "venv")
    words = ("--hosts", "localhost", "--python", python, "--bootstrap", "--sync")
    words = (*words, "--workdir", there, "--nproc-per-node", "1", "train.py")
    result = distrun("launch", *words, cwd=project)
    assert result.returncode == 0, result.stderr
    assert "trained" in result.stdout


def test_ctrl_c_ends_the_sending(command: list[str], project: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f'case "$*" in *receive*) touch {started}; exec cat > /dev/null;; esac'
    stand_in(tmp_path, "ssh", f'{script}; exec {FAKES / "ssh/ssh"} "$@"')
    words = [*command, "launch", "--hosts", "localhost", "--sync", "train.py"]
    child = subprocess.Popen(words, cwd=project, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(started.exists, 40)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
    finally:
        child.kill()
        child.communicate()
