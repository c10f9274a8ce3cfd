"""A config file that somebody else may write is not read, unless the user names it."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from distrun.spec import read

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root"),
]
NOBODY = 65534


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a pyproject.toml; the current one is two below."""
    project = tmp_path / "project"
    (project / "a" / "b").mkdir(parents=True)
    (project / "pyproject.toml").write_text("[tool.distrun]\nstrategy = 'tp'\n")
    monkeypatch.chdir(project / "a" / "b")
    return project


def strategy(config: Path | None = None) -> tuple[str | None, list[str]]:
    """Return what was read, and what was said of the files."""
    said: list[str] = []
    return read.settings({}, config, said.append).strategy, said


def test_what_nobody_else_may_write_is_read_and_named_in_full(project: Path) -> None:
    assert strategy() == ("tp", [f"settings from {project}/pyproject.toml"])


def test_a_file_without_settings_is_not_worth_a_line(project: Path) -> None:
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert strategy() == (None, [])
    os.chown(project / "pyproject.toml", NOBODY, NOBODY)
    assert strategy() == (None, [])


@pytest.mark.parametrize("place", ["pyproject.toml", "."])
def test_what_another_user_owns_is_not_read(project: Path, place: str) -> None:
    os.chown(project / place, NOBODY, NOBODY)
    found, (said,) = strategy()
    assert found is None
    which = "it" if place != "." else str(project)
    assert said == (
        f"{project}/pyproject.toml is not read: {which} belongs to another user (uid {NOBODY});"
        f" to read it anyway: --config {project}/pyproject.toml"
    )


@pytest.mark.parametrize("place", ["pyproject.toml", "."])
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o775])
def test_what_others_may_write_is_not_read(project: Path, place: str, mode: int) -> None:
    os.chown(project / place, 0, NOBODY)
    (project / place).chmod(mode)
    found, (said,) = strategy()
    assert found is None
    assert f"can be written by others (mode {mode:o})" in said


def test_a_group_of_the_user_alone_is_nobody_else(project: Path) -> None:
    members = grp.getgrgid(0).gr_mem
    (project / "pyproject.toml").chmod(0o664)
    assert strategy()[0] == ("tp" if not set(members) - {"root"} else None)


def test_in_a_sticky_directory_a_file_of_ones_own_is_read_and_another_is_not(
    project: Path,
) -> None:
    project.chmod(0o1777)
    assert strategy()[0] == "tp"
    os.chown(project / "pyproject.toml", NOBODY, NOBODY)
    assert strategy()[0] is None


def test_a_directory_above_the_users_own_counts_too(project: Path) -> None:
    project.parent.chmod(0o777)
    found, (said,) = strategy()
    assert found is None
    assert f"{project.parent} can be written by others" in said


@pytest.mark.parametrize("hostile", ["the link", "between", "the target"])
def test_every_link_on_the_way_counts(project: Path, hostile: str) -> None:
    """project/pyproject.toml -> theirs/next -> other/real.toml."""
    theirs, other = project.parent / "theirs", project.parent / "other"
    theirs.mkdir()
    other.mkdir()
    file = project / "pyproject.toml"
    file.rename(other / "real.toml")
    (theirs / "next").symlink_to("../other/real.toml")
    file.symlink_to(theirs / "next")
    assert strategy()[0] == "tp"
    foreign = {"the link": file, "between": theirs, "the target": other / "real.toml"}[hostile]
    os.chown(foreign, NOBODY, NOBODY, follow_symlinks=False)
    assert strategy()[0] is None


def test_a_named_file_is_read_and_the_danger_told(project: Path) -> None:
    file = project / "pyproject.toml"
    os.chown(project, NOBODY, NOBODY)
    found, said = strategy(file)
    assert found == "tp"
    assert said == [
        f"warning: {file} is read because --config names it, but {project} belongs to another"
        f" user (uid {NOBODY})",
        f"settings from {file}",
    ]


def test_a_pipe_that_the_users_shell_has_made_is_read_without_a_warning(project: Path) -> None:
    (project / "pyproject.toml").unlink()
    pipe, write = os.pipe()
    os.write(write, b"[tool.distrun]\nstrategy = 'tp'\n")
    os.close(write)
    found, said = strategy(Path(f"/proc/self/fd/{pipe}"))
    os.close(pipe)
    assert found == "tp"
    assert not [line for line in said if "warning" in line]


def test_a_file_that_may_not_be_looked_for_is_none(project: Path) -> None:
    """As in a container with another uid than the project's owner."""
    project.chmod(0o000)
    os.seteuid(NOBODY)
    try:
        assert strategy() == (None, [])
    finally:
        os.seteuid(0)
        project.chmod(0o755)
