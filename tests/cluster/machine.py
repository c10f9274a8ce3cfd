"""One machine of namespaces: own processes, network, hostname, files of /etc, /tmp and homes.

The namespaces have no name, so a killed test leaves nothing: they go with their processes, and
process 1 (`machine_init`) goes when its stdin ends. What the tests need of this file system
(the working tree, the environment, the test's own directory) is visible on the machine at the
same path, as on a shared file system.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
PRIVATE = {  # directory: size of the tmpfs
    "/tmp": "64m",
    "/var/tmp": "64m",
    "/run": "64m",
    "/home": "64m",
    "/root": "64m",
    "/dev/shm": "1g",
}
_TIMEOUT_S = 20.0


def visible_paths(*more: Path) -> list[str]:
    """Return what of this file system a machine has to show although its directory is private."""
    paths = [REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *more]
    needed = {path.resolve() for path in paths}
    hidden = [p for p in needed if any(p.is_relative_to(d) for d in PRIVATE)]
    return sorted(str(p) for p in hidden if not any(p != q and p.is_relative_to(q) for q in hidden))


class Machine:
    """A machine that is up; `close` ends it.

    Args:
        name: Its hostname.
        directory: Where its files of /etc are kept; the caller's.
        files: Text of files that it has in place of this machine's, by path. They exist here.
        visible: Paths below the private directories that it shows.
        without_python: Whether its PATH has no interpreter.
        hidden: Directories of this machine that are empty there.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        files: Mapping[str, str],
        visible: Sequence[str],
        without_python: bool = False,
        hidden: Sequence[str | Path] = (),
    ) -> None:
        self.name = name
        self.etc = directory / name
        self.etc.mkdir(parents=True)
        order: dict[str, object] = {
            "name": name,
            "files": self._write({**files, **_identity(name)}),
            "private": PRIVATE,
            "visible": visible,
            "no_python_in": _programs() if without_python else [],
            "hidden": [*map(str, hidden)],
        }
        self._start(order)
        self.settle()

    def _write(self, files: Mapping[str, str]) -> dict[str, str]:
        """Write files of the machine; return where each is, by the path that it gets there."""
        written = {}
        for path, text in files.items():
            source = self.etc / path.strip("/").replace("/", "_")
            source.write_text(text)
            source.chmod(0o644)
            written[path] = str(source)
        return written

    def _start(self, order: dict[str, object]) -> None:
        kinds = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        init = [sys.executable, "-I", str(Path(__file__).with_name("machine_init.py"))]
        with open(self.etc / "init.log", "w") as log:
            self._holder = subprocess.Popen(
                ["unshare", *kinds, "--propagation", "private", "--mount-proc", *init],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LANG": "C.UTF-8"},
                start_new_session=True,  # Ctrl-C is for pytest, which then ends the machine
            )
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.write(json.dumps(order).encode() + b"\n")
        self._holder.stdin.flush()
        if self._holder.stdout.readline() != b"up\n":
            self.close()
            raise RuntimeError(f"{self.name}: {(self.etc / 'init.log').read_text()}")
        (init_process,) = psutil.Process(self._holder.pid).children()
        self.pid = init_process.pid
        self._namespace = _pid_namespace(self.pid)
        self.ip("link", "set", "lo", "up")

    @property
    def root(self) -> Path:
        """Its file system, as seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def within(self, *words: str | Path, cwd: str | Path = "/") -> list[str]:
        """Return the command that runs words there. A signal to it does not reach them."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--uts", "--ipc"]
        line = f"cd {shlex.quote(str(cwd))} && exec {shlex.join(map(str, words))}"
        return [*enter, "--pid", "sh", "-c", line]

    def run(
        self,
        *words: str | Path,
        cwd: str | Path = "/",
        timeout_s: float = 60.0,
        **options: object,
    ) -> subprocess.CompletedProcess[str]:
        """Run words there to their end; options are those of `subprocess.run`."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self.within(*words, cwd=cwd),
            **{  # type: ignore[call-overload]
                "capture_output": True,
                "text": True,
                "timeout": timeout_s,
                "stdin": subprocess.DEVNULL,
                **options,
            },
        )
        return done

    def network(self, *words: str) -> str:
        """Run a program of this machine in that one's network; return what it printed."""
        return in_network(self.pid, *words)

    def ip(self, *words: str) -> str:
        """Run ip in its network."""
        return self.network("ip", *words)

    def processes(self) -> dict[int, str]:
        """Return what runs there besides process 1: the pid here, and the command line."""
        found = {}
        for process in psutil.process_iter():
            if process.pid == self.pid or _pid_namespace(process.pid) != self._namespace:
                continue
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline()) or process.name()
            except psutil.NoSuchProcess:
                pass  # it has ended meanwhile
        return found

    def kill(self, chosen: Callable[[str], bool] = bool) -> None:
        """Kill the processes whose command line is chosen, and those that they start meanwhile."""
        while left := [pid for pid, line in self.processes().items() if chosen(line)]:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it has ended by itself

    def settle(self) -> None:
        """Take the files of this moment as those that belong to the machine."""
        self._baseline = self._everything()

    def files(self) -> list[str]:
        """Return the paths that have come to its private directories."""
        return sorted(self._everything() - self._baseline)

    def _everything(self) -> set[str]:
        found: set[str] = set()
        for top in PRIVATE:
            device = (self.root / top[1:]).stat().st_dev
            for at, directories, names in os.walk(self.root / top[1:]):
                own = [d for d in directories if os.lstat(Path(at, d)).st_dev == device]
                directories[:] = own  # others are visible paths of this machine
                shown = Path(at).relative_to(self.root)
                found.update(f"/{shown / name}" for name in [*own, *names])
        return found

    def restore(self) -> None:
        """Remove the files that have come to its private directories."""
        for path in self.files():
            at = self.root / path[1:]
            if at.is_dir() and not at.is_symlink():
                shutil.rmtree(at, ignore_errors=True)
            else:
                at.unlink(missing_ok=True)

    def close(self) -> None:
        """End it and all that runs there."""
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.close()
        try:
            self._holder.wait(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._holder.kill()  # its child, process 1, gets the same
            self._holder.wait(timeout=_TIMEOUT_S)
        self._holder.stdout.close()


def in_network(pid: int, *words: str) -> str:
    """Run a command in the network of a process; return what it printed, or raise with it."""
    command = ["nsenter", "--target", str(pid), "--net", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _pid_namespace(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return 0  # it has ended


def _identity(name: str) -> dict[str, str]:
    """Return the files by which programs tell machines apart."""
    return {
        "/etc/hostname": f"{name}\n",
        "/proc/sys/kernel/random/boot_id": f"{uuid.uuid4()}\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
        "/etc/resolv.conf": "",
    }


def _programs() -> list[str]:
    """Return the directories with an interpreter that a login there would find."""
    usual = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/games"]
    found = [Path(d).resolve() for d in [*usual, f"{sys.base_prefix}/bin"]]
    return sorted({str(d) for d in found if any(d.glob("python*"))})
