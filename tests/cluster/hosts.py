"""Hosts that are reached as users reach theirs: by name, through OpenSSH, over a network.

Each host is a machine of namespaces with its own sshd and host key. `ssh_environ` puts an
`ssh` first on PATH that reads the test's configuration, so nothing of `~/.ssh` is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import distrun
from tests.cluster import openssh
from tests.cluster.machine import REPOSITORY, Machine, visible_paths
from tests.cluster.needs import program_path
from tests.cluster.switch import Switch
from tests.conftest import wait_until

NAMES = ("n01", "n02", "n03")
_NOBODY = 250
"""The number of an address that no machine has."""


def _is_listener(command_line: str) -> bool:
    return command_line.startswith("sshd: ") and "[listener]" in command_line


class Hosts:
    """Hosts that are up; `close` takes them away.

    Names that ssh knows besides `names`, each for one failure: `stranger` (its host key is
    unknown), `changed` (known_hosts has another key for it), `unknown-key` (it does not accept
    the key), `refused` (nothing listens), `no-route` (no machine has the address; ssh gives up
    after 3 s). `NAME-6` is a host by its IPv6 address. `ada@NAME` is an unprivileged user,
    `cora@NAME` has csh, a banner, and a greeting on stdout; the home of `nemo@NAME` does not
    exist. `bare()` is a host without python, `plain()` one without distrun.

    Args:
        directory: Where keys and configuration are kept; the caller's.
        names: The hostnames.
        visible: Directories of this machine that the hosts show, besides the working tree and
            the environment.
        sshd: Whether each runs its daemon.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str] = NAMES,
        visible: Sequence[Path] = (),
        sshd: bool = True,
    ) -> None:
        self.directory = directory
        self.names = tuple(names)
        self.machines: dict[str, Machine] = {}
        self.addresses: dict[str, str] = {}
        self.addresses6: dict[str, str] = {}
        self._visible = visible_paths(directory, *visible)
        self._sshd = sshd
        self._switch = Switch()
        try:
            for name in names:
                self._boot(name)
            self._introduce(*names)
        except BaseException:  # a half-made cluster goes too, also at Ctrl-C
            self.close()
            raise

    @property
    def here(self) -> str:
        """The IPv4 address of this machine on the hosts' network."""
        return self._switch.here

    def bare(self) -> str:
        """Boot a host without python, if it is not yet there; return its name."""
        if "bare" not in self.machines:
            venv = [f"{sys.prefix}/bin"] if sys.prefix != sys.base_prefix else []
            self._boot("bare", without_python=True, hidden=venv)
            self._introduce("bare")
        return "bare"

    def plain(self) -> str:
        """Boot a host that has torch but no distrun, if it is not yet there; return its name.

        The working tree is empty there. Skips the test if distrun is not installed from it, or
        if the environment is in it.
        """
        if Path(sys.prefix).is_relative_to(REPOSITORY):
            pytest.skip("the environment is in the working tree, which that host lacks")
        if not Path(distrun.__file__).is_relative_to(REPOSITORY):
            pytest.skip("distrun is not installed from the working tree (pip install -e)")
        if "plain" not in self.machines:
            self._boot("plain", hidden=[REPOSITORY])
            self._introduce("plain")
        return "plain"

    def _boot(
        self, name: str, without_python: bool = False, hidden: Sequence[str | Path] = ()
    ) -> None:
        number = len(self.machines) + 1
        self.addresses[name] = self._switch.address(number)
        self.addresses6[name] = self._switch.address6(number)
        machine = self.machines[name] = Machine(
            name,
            self.directory,
            files={"/etc/hosts": "", **openssh.account_files()},
            visible=self._visible,
            without_python=without_python,
            hidden=hidden,
        )
        self._switch.plug(machine, number)

    def _introduce(self, *new: str) -> None:
        """Let all know new hosts by name, and let those be reached by ssh."""
        for name in self.machines:
            self.write_hosts(name)
        if not self._sshd:
            return
        own = openssh.make_key(self.directory / "own")
        openssh.make_key(self.directory / "other")
        for name in new:
            openssh.make_key(self.directory / f"host_key_{name}")
            openssh.furnish(self.machines[name].root, own)
            self.machines[name].settle()
            config = openssh.sshd_config(name, self.directory)
            (self.directory / f"sshd_{name}").write_text(config)
            self.start_sshd(name)
        self._write_client()

    def _write_client(self) -> None:
        by_name = {**self.addresses, "no-route": self._switch.address(_NOBODY)}
        by_name |= {f"{name}-6": address for name, address in self.addresses6.items()}
        config = openssh.client_config(by_name, self.directory)
        (self.directory / "ssh_config").write_text(config)
        known = {n: (n, self.addresses[n], self.addresses6[n]) for n in self.machines}
        (self.directory / "known_hosts").write_text(openssh.known_hosts(known, self.directory))
        openssh.write_client(self.directory)

    def ssh_environ(self) -> dict[str, str]:
        """Return this environment, with an ssh that has the test's configuration, and no agent."""
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path}
        environ.pop("SSH_AUTH_SOCK", None)
        return environ

    def write_hosts(self, name: str, changed: Mapping[str, str] | None = None) -> None:
        """Write a host's /etc/hosts: every name, as it is or as given ("" leaves it out)."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
        for each in self.machines:
            if each not in (changed or {}):
                lines += [f"{self.addresses[each]} {each}", f"{self.addresses6[each]} {each}"]
        lines += [f"{address} {each}" for each, address in (changed or {}).items() if address]
        (self.machines[name].etc / "etc_hosts").write_text("\n".join(lines) + "\n")

    def run(
        self, name: str, argv: Sequence[str | Path], **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end, without ssh; `Machine.run` has the options."""
        return self.machines[name].run(*argv, **options)  # type: ignore[arg-type]

    def pids(self, name: str) -> dict[int, str]:
        """Return what runs on a host besides sshd's listener: the pid here, the command line."""
        found = self.machines[name].processes()
        return {pid: line for pid, line in found.items() if not _is_listener(line)}

    def files(self, name: str) -> list[str]:
        """Return what has come to /tmp, /var/tmp, /run, /home, /root and /dev/shm of a host."""
        return self.machines[name].files()

    @contextmanager
    def full_tmp(self, name: str) -> Iterator[None]:
        """Let /tmp of a host have no free byte."""
        filler = self.machines[name].root / "tmp/filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(2**20)):
                    pass
            except OSError:
                pass  # it is full
        try:
            yield
        finally:
            filler.unlink()

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        self._switch.cut(self.machines[name])

    def mend(self, name: str) -> None:
        """Plug it in again, and lose no more packets."""
        self._switch.mend(self.machines[name])

    def lossy(self, name: str, percent: int) -> None:
        """Lose a share of a host's packets, each way, until `mend`."""
        self._switch.lossy(self.machines[name], percent)

    def power_off(self, name: str) -> None:
        """Cut a host off, then kill all that runs there but sshd's listener."""
        self.cut(name)
        machine = self.machines[name]
        machine.kill(lambda line: not _is_listener(line))

    def stop_sshd(self, name: str) -> None:
        """End a host's listener; connections that are there stay."""
        for pid, line in self.machines[name].processes().items():
            if _is_listener(line):
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self._listens(name), 10, f"the end of sshd on {name}")

    def start_sshd(self, name: str) -> None:
        """Start a host's daemon, and wait until it listens."""
        words = [str(program_path("sshd")), "-f", str(self.directory / f"sshd_{name}")]
        log = self.directory / f"sshd_{name}.log"
        done = self.run(name, [*words, "-E", str(log)], env={"PATH": os.defpath})  # no test's mark
        assert done.returncode == 0, done.stderr + log.read_text()
        wait_until(lambda: self._listens(name), 10, f"sshd on {name}")

    def _listens(self, name: str) -> bool:
        return any(map(_is_listener, self.machines[name].processes().values()))

    def restore(self, keep: Callable[[str], bool] = _is_listener) -> None:
        """Make all as at the start: network, names, processes, files, sshd.

        Args:
            keep: Whether a process goes on, by its command line.
        """
        for name, machine in self.machines.items():
            self._switch.restore(machine)
            self.write_hosts(name)
            machine.kill(lambda line: not keep(line))
            machine.restore()
            if self._sshd and not self._listens(name):
                self.start_sshd(name)

    def close(self) -> None:
        """Take them away with all that runs there."""
        for machine in self.machines.values():
            machine.close()
        self._switch.close()
        shutil.rmtree(self.directory, ignore_errors=True)
