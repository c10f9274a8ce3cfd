"""Which files `--sync` sends, and where to: with git and without, of odd names and places."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from distrun.errors import MachineError, UsageError
from distrun.nodes import project
from distrun.nodes.project import Project, read_project, shown_size

RUNS = Path("runs")
HOSTILE = [b"-rf", b"we\xffird", b"two\nlines", b" ", b'"; touch owned #', "ü".encode()]


@pytest.fixture(autouse=True)
def in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a directory with a script, which is no work tree."""
    here = tmp_path / "proj"
    here.mkdir()
    (here / "train.py").write_text("print(1)\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return here


def git(*words: str | Path) -> None:
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *own, *map(str, words)], check=True, capture_output=True, timeout=30)


def names(found: Project) -> set[str]:
    return {file.name for file in found.files}


def sent() -> Project:
    return read_project(Path("train.py"), None, RUNS)


def write(*files: str) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("x")


def test_git_says_what_belongs_to_the_project() -> None:
    git("init", "-q")
    Path(".gitignore").write_text("*.log\ndata/\n")
    write("a.py", "new.py", "gone.py", "a.log", "data/x", "runs/r/run.json", "sub/b.py")
    git("add", "a.py", "gone.py")
    Path("gone.py").unlink()
    assert names(sent()) == {"train.py", ".gitignore", "a.py", "new.py", "sub/b.py"}


def test_the_whole_work_tree_is_sent_for_a_script_below_its_root() -> None:
    git("init", "-q")
    write("lib/a.py", "jobs/b.py")
    found = read_project(Path("jobs/b.py"), None, RUNS)
    assert names(found) == {"train.py", "lib/a.py", "jobs/b.py"}
    assert found.root == found.into == Path.cwd()


def test_repositories_within_the_project_are_sent_too(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(str(other / "lib.py"))
    git("init", "-q", other)
    git("-C", other, "add", ".")
    git("-C", other, "commit", "-qm", "a")
    git("init", "-q")
    git("submodule", "add", "-q", other, "module")
    git("clone", "-q", other, "clone")
    expected = {"train.py", ".gitmodules", "module/lib.py", "module/.git", "clone/lib.py"}
    assert names(sent()) - {"module/.git"} == expected - {"module/.git"}


def test_without_git_all_is_sent_but_what_nobody_misses() -> None:
    write("a.py", "sub/b.txt", "__pycache__/a.pyc", ".venv/x", "runs/r/run.json", "sub/.git/x")
    Path("to_sub").symlink_to("sub")
    found = sent()
    assert names(found) == {"train.py", "a.py", "sub/b.txt", "to_sub"}
    assert {f.link for f in found.files if f.name == "to_sub"} == {"sub"}


@pytest.mark.parametrize("with_git", [True, False])
def test_names_of_any_bytes_are_listed(with_git: bool) -> None:
    if with_git:
        git("init", "-q")
    for name in HOSTILE:
        Path(os.fsdecode(name)).write_text("x")
    assert {os.fsencode(name) for name in names(sent())} == {b"train.py", *HOSTILE}


def test_large_files_are_left_out_unless_git_tracks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "-q")
    monkeypatch.setattr(project, "MOST_NBYTES", 1000)
    for name in ("data.bin", "ckpt.pt"):
        Path(name).write_bytes(bytes(1001))
    git("add", "data.bin")
    found = sent()
    assert names(found) == {"train.py", "data.bin"}
    assert found.left_out == (
        "'ckpt.pt' is not sent: 1.0 kB is more than 1.0 kB, and git lacks it",
    )


def test_a_link_out_of_the_project_is_told_and_not_sent() -> None:
    write("sub/a")
    for name, target in {"out": "/etc", "up": "../..", "in": "sub/a", "sub/back": "../in"}.items():
        Path(name).symlink_to(target)
    found = sent()
    assert names(found) == {"train.py", "sub/a", "in", "sub/back"}
    assert [line.split()[0] for line in found.left_out] == ["'out'", "'up'"]


def test_what_is_no_file_is_not_sent() -> None:
    os.mkfifo("pipe")
    assert names(sent()) == {"train.py"}


def test_the_home_directory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other_name = tmp_path / "home"
    other_name.symlink_to(Path.cwd())
    for home in (Path.cwd(), other_name):
        monkeypatch.setenv("HOME", str(home))
        with pytest.raises(UsageError, match="would send your home directory"):
            sent()


def test_the_whole_file_system_is_refused() -> None:
    with pytest.raises(UsageError, match="would send the whole file system"):
        read_project(Path("/train.py"), None, RUNS)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "_MOST_FILES", 2)
    write("a", "b")
    with pytest.raises(UsageError, match="more than 2 files"):
        sent()


def test_what_git_complains_of_is_told() -> None:
    git("init", "-q")
    Path(".git/config").write_text("[core]\nrepositoryformatversion = 99\n")
    with pytest.raises(MachineError, match=r"git cannot list the files .*: .*version"):
        sent()


def test_another_repository_in_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git("init", "-q", tmp_path / "hook")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hook/.git"))
    assert names(sent()) == {"train.py"}


# --- where to ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cwd", "script", "workdir", "into"),
    [
        (".", "train.py", None, "HERE"),
        (".", "train.py", "/job", "/job"),
        (".", "sub/b.py", "/job", "/job"),
        ("..", "proj/train.py", "/job", "/job/proj"),
        ("sub", "b.py", None, "HERE"),
        ("sub", "b.py", "/job/sub", "/job"),
        ("sub", "../train.py", "/job/sub", "/job"),
        (".", "HERE/train.py", "/job", "HERE"),
    ],
)
def test_the_script_arrives_where_it_is_looked_for(
    cwd: str,
    script: str,
    workdir: str | None,
    into: str,
    in_a_project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    git("init", "-q")
    write("sub/b.py")
    monkeypatch.chdir(cwd)
    here = str(in_a_project)
    there = Path(workdir) if workdir else None
    found = read_project(Path(script.replace("HERE", here)), there, RUNS)
    assert (str(found.root), str(found.into)) == (here, into.replace("HERE", here))


def test_a_workdir_that_does_not_fit_the_current_directory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    git("init", "-q")
    write("sub/b.py")
    monkeypatch.chdir("sub")
    with pytest.raises(UsageError, match="'/job' does not end in 'sub'") as refused:
        read_project(Path("b.py"), Path("/job"), RUNS)
    assert "--workdir '/job/sub'" in refused.value.hint


def test_a_module_belongs_to_the_project_of_the_current_directory(in_a_project: Path) -> None:
    assert read_project(None, Path("/job"), RUNS).root == in_a_project


@pytest.mark.parametrize(
    ("nbytes", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (1_200_000, "1.2 MB")]
)
def test_sizes_are_shown_with_their_units(nbytes: int, shown: str) -> None:
    assert shown_size(nbytes) == shown
