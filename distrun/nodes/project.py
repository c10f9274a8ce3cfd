"""The files of a project that `launch --sync` sends."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from distrun.errors import MachineError, UsageError

_LEFT_OUT = {"__pycache__", ".venv", "venv", ".git", ".hg", "node_modules", "runs"}
"""Directories that are not sent if git does not say what belongs to the project."""
_RUNS = "runs/"
"""Records of launches, also of those that were told another directory."""
MOST_NBYTES = 100_000_000
"""Larger files are not sent, unless git tracks them: they are checkpoints and data."""
_MOST_FILES = 50_000
_LS_FILES = ("ls-files", "-z", "--exclude-standard")


@dataclass(frozen=True)
class ProjectFile:
    """A file, or a link."""

    name: str
    """Its path below the root, as `os.fsdecode` gives it."""
    mode: int
    nbytes: int
    mtime_ns: int
    link: str | None = None
    """Where it points, if it is a link."""


@dataclass(frozen=True)
class Project:
    """What is sent."""

    root: Path
    into: Path
    """The directory on the other machines."""
    files: tuple[ProjectFile, ...]
    left_out: tuple[str, ...] = ()
    """What is not sent, and why, a sentence each."""


def read_project(script: Path | None, workdir: Path | None, runs_dir: Path) -> Project:
    """Read what belongs to the project: the work tree of git, else the script's directory.

    Args:
        script: The script; None: the current directory is in the project.
        workdir: The directory there that corresponds to the current one; None: of the same path.
        runs_dir: Where runs are recorded; it is not sent.

    Raises:
        UsageError: The project is the home directory, or has no place below `workdir`.
        MachineError: git cannot list its files.
    """
    here = Path(os.path.abspath(script.parent if script else "."))  # noqa: PTH100 - keeps links
    root, has_git = _root(here)
    _refuse_everything(root)
    names = _of_git(root) if has_git else [(name, False) for name in _of_directory(root)]
    files, left_out = _described(root, names, Path(os.path.abspath(runs_dir)))  # noqa: PTH100
    absolute = script is not None and script.is_absolute()
    into = root if workdir is None or absolute else _below(workdir, root, Path.cwd())
    return Project(root, into, tuple(files), tuple(left_out))


def root_of(here: Path) -> Path:
    """Return the root of the project that a directory belongs to: of git's work tree, or itself.

    Raises:
        MachineError: git does not work there.
    """
    return _root(here)[0]


def _root(here: Path) -> tuple[Path, bool]:
    """Return the root of the project, and whether git knows its files."""
    try:
        up = _git(here, "rev-parse", "--show-cdup")
    except FileNotFoundError:
        return here, False
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip() or f"exit code {error.returncode}"
        if "not a git repository" in words or "must be run in a work tree" in words:
            return here, False
        last = words.splitlines()[0].removeprefix("fatal: ")
        raise MachineError(
            f"--sync: git cannot list the files of {str(here)!r}: {last}",
            f"`git -C {str(here)!r} status` has to work",
        ) from None
    physical = here / os.fsdecode(up.rstrip(b"\n"))
    root = Path(os.path.normpath(physical))
    # `..` after a link leads elsewhere than the path says.
    return root if root.exists() and root.samefile(physical) else physical.resolve(), True


def _git(directory: Path, *words: str) -> bytes:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *words],
        cwd=directory,
        env={**environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return done.stdout


def _refuse_everything(root: Path) -> None:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - never raises
    for place, what in ((Path("/"), "the whole file system"), (home, "your home directory")):
        if root == place or (root.exists() and place.exists() and root.samefile(place)):
            raise UsageError(
                f"--sync would send {what}, {str(root)!r}",
                "put the project into a directory of its own, and `git init` there",
            )


def _of_git(root: Path, below: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the name of each file, and whether it is tracked; those of submodules too."""
    directory = root / below
    for tracked, option in ((True, "--cached"), (False, "--others")):
        for name in map(os.fsdecode, _git(directory, *_LS_FILES, option).split(b"\0")):
            whole = f"{below}{name.rstrip('/')}"
            if not name:
                continue
            if (root / whole).is_dir() and not (root / whole).is_symlink():
                if (root / whole / ".git").exists():  # a repository within the project
                    yield from _of_git(root, f"{whole}/")
            else:
                yield whole, tracked


def _of_directory(root: Path) -> Iterator[str]:
    for directory, below, names in os.walk(root):
        links = [name for name in below if Path(directory, name).is_symlink()]
        below[:] = sorted(name for name in below if name not in _LEFT_OUT and name not in links)
        for name in sorted((*names, *links)):
            yield os.path.relpath(Path(directory, name), root)


def _described(
    root: Path, names: Iterator[tuple[str, bool]] | list[tuple[str, bool]], runs_dir: Path
) -> tuple[list[ProjectFile], list[str]]:
    """Return the files that are sent, and sentences about what is not."""
    found: dict[str, ProjectFile] = {}
    left_out: list[str] = []
    for name, tracked in names:
        path = root / name
        if not tracked and (path.is_relative_to(runs_dir) or name.startswith(_RUNS)):
            continue
        if (file := _file(root, name)) is None:
            continue
        if file.link is not None and not _points_inside(name, file.link):
            left_out.append(f"{name!r} is not sent: the link leads out of the project")
        elif file.nbytes > MOST_NBYTES and not tracked:
            size, most = shown_size(file.nbytes), shown_size(MOST_NBYTES)
            left_out.append(f"{name!r} is not sent: {size} is more than {most}, and git lacks it")
        else:
            found[name] = file
        if len(found) > _MOST_FILES:
            raise UsageError(
                f"--sync would send more than {_MOST_FILES} files of {str(root)!r}",
                "put the script into a directory of its own, or list data in .gitignore",
            )
    return list(found.values()), left_out


def _file(root: Path, name: str) -> ProjectFile | None:
    """Return a file, or None if it is gone, or a pipe, a socket or a device."""
    try:
        facts = (root / name).lstat()
        file = ProjectFile(name, stat.S_IMODE(facts.st_mode), facts.st_size, facts.st_mtime_ns)
        if stat.S_ISLNK(facts.st_mode):
            return replace(file, nbytes=0, link=str((root / name).readlink()))
    except OSError:
        return None
    return file if stat.S_ISREG(facts.st_mode) else None


def _points_inside(name: str, link: str) -> bool:
    target = os.path.normpath(os.path.join(os.path.dirname(name), link))  # noqa: PTH118, PTH120
    return not link.startswith("/") and target.split("/")[0] != ".."


def _below(workdir: Path, root: Path, here: Path) -> Path:
    """Return where the root goes, if the current directory is to be `workdir` there.

    Raises:
        UsageError: The current directory is below the root, and `workdir` ends differently.
    """
    way = os.path.relpath(root, here)
    ups = way.split("/").count("..")
    names = here.parts[len(here.parts) - ups :] if ups else ()
    if names and workdir.parts[-ups:] != names and here.is_relative_to(root):
        below = "/".join(names)
        raise UsageError(
            f"--workdir {str(workdir)!r} does not end in {below!r}, as the current directory does"
            f" in the project {str(root)!r}",
            f"--workdir {str(workdir / below)!r}, or start it in {str(root)!r}",
        )
    return Path(os.path.normpath(workdir / way)) if here.is_relative_to(root) or not ups else root


def shown_size(nbytes: int) -> str:
    """Return a size for people: `1.2 MB`."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= one:
            return f"{nbytes / one:.1f} {unit}"
    return f"{nbytes} bytes"
