"""The switch between machines of namespaces, with a port for this machine too.

It is a bridge in a network namespace of its own. This machine's port has a number that no
other switch has, and the addresses follow from it, so several pytest workers run side by side.
The range is the one for benchmarks (RFC 2544): no real network has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.cluster.machine import Machine, in_network
from tests.conftest import wait_until

_Run = Callable[..., str]
_HERE = 254
"""The last number of this machine's address on the switch."""


class Switch:
    """A switch that is on; `close` takes it away, and the end of this process does."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"],  # cat lives until its stdin ends
            env={"PATH": os.environ["PATH"]},  # no mark of the test that asks
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.write(b"\n")
        self._holder.stdin.flush()
        self._holder.stdout.readline()  # it is cat by now, in its namespace
        self._ports: dict[str, str] = {}
        self._settings: dict[str, str] = {}
        self._run("ip", "link", "add", "bridge", "type", "bridge")
        self._run("ip", "link", "set", "bridge", "up")
        self.number = self._connect_here()

    def _run(self, *words: str) -> str:
        return in_network(self._holder.pid, *words)

    def _connect_here(self) -> int:
        """Make this machine's port; a number that is taken cannot be made twice."""
        for attempt in range(254):
            number = 1 + (os.getpid() + attempt) % 254
            peer = ["type", "veth", "peer", "name", "here", "netns", str(self._holder.pid)]
            add = ["ip", "link", "add", f"distrun{number}", *peer]
            added = subprocess.run(add, capture_output=True, text=True)
            if added.returncode == 0:
                break
            if "File exists" not in added.stderr:
                raise RuntimeError(added.stderr.strip())
        else:
            raise RuntimeError("254 switches are in use; `ip link` shows them as distrunN")
        self.number = number
        self._run("ip", "link", "set", "here", "master", "bridge", "up")
        self._address(os.getpid(), f"distrun{number}", _HERE)
        return number

    def address(self, host: int) -> str:
        """Return the IPv4 address of a machine by its number on the switch."""
        return f"198.18.{self.number}.{host}"

    def address6(self, host: int) -> str:
        """Return its IPv6 address (unique local)."""
        return f"fd12:d157:{self.number:x}::{host:x}"

    @property
    def here(self) -> str:
        """The IPv4 address of this machine."""
        return self.address(_HERE)

    def _address(self, pid: int, device: str, host: int) -> None:
        for word, address in (
            ("-4", f"{self.address(host)}/24"),
            ("-6", f"{self.address6(host)}/64"),
        ):
            nodad = ["nodad"] if word == "-6" else []  # usable at once
            in_network(pid, "ip", word, "addr", "add", address, "dev", device, *nodad)
        in_network(pid, "ip", "link", "set", device, "up")

    def plug(self, machine: Machine, host: int) -> None:
        """Connect a machine as `eth0`, with its addresses and a default route."""
        port = self._ports[machine.name] = f"port{host}"
        peer = ["type", "veth", "peer", "name", "eth0", "netns", str(machine.pid)]
        self._run("ip", "link", "add", port, *peer)
        self._run("ip", "link", "set", port, "master", "bridge", "up")
        self._configure(machine, host)
        self._settings[machine.name] = _settings(machine)

    def _configure(self, machine: Machine, host: int) -> None:
        self._address(machine.pid, "eth0", host)
        machine.ip("route", "add", "default", "via", self.here)
        machine.ip("-6", "route", "add", "default", "via", self.address6(_HERE))
        self._until_up(machine)

    def restore(self, machine: Machine) -> None:
        """Connect a machine as it was, with the addresses, routes and MTU that it had."""
        self.mend(machine)
        if _settings(machine) != self._settings[machine.name]:
            machine.ip("addr", "flush", "dev", "eth0")
            machine.ip("link", "set", "eth0", "down", "mtu", "1500")
            machine.ip("route", "flush", "table", "main")
            machine.ip("-6", "route", "flush", "table", "main")
            self._configure(machine, int(self._ports[machine.name].removeprefix("port")))

    def _until_up(self, machine: Machine) -> None:
        up = "state UP"
        wait_until(lambda: up in machine.ip("link", "show", "eth0"), 10, f"eth0 of {machine.name}")

    def cut(self, machine: Machine) -> None:
        """Pull the cable of a machine."""
        self._run("ip", "link", "set", self._ports[machine.name], "down")

    def mend(self, machine: Machine) -> None:
        """Plug it in again, and lose no more packets."""
        self._run("ip", "link", "set", self._ports[machine.name], "up")
        for device, run in self._ways(machine) if shutil.which("nft") else ():
            if f"lossy_{device}\n" in run("nft", "list", "tables"):
                run("nft", "delete", "table", "netdev", f"lossy_{device}")
        self._until_up(machine)

    def lossy(self, machine: Machine, percent: int) -> None:
        """Lose 1 to 99 % of the packets at random, both ways; skip where the kernel cannot."""
        if shutil.which("nft") is None:
            pytest.skip("needs nft (nftables) to lose packets")
        for device, run in self._ways(machine):
            table = f"netdev lossy_{device}"
            hook = f"type filter hook ingress device {device} priority 0;"
            try:
                run("nft", f"add table {table}")
                run("nft", f"flush table {table}")
                run("nft", f"add chain {table} arriving {{ {hook} }}")
                run("nft", f"add rule {table} arriving numgen random mod 100 < {percent} drop")
            except RuntimeError as error:
                if "not supported" in str(error) or "No such file" in str(error):
                    pytest.skip(f"this kernel cannot lose packets: {error}")
                raise

    def _ways(self, machine: Machine) -> list[tuple[str, _Run]]:
        """Return the device at which packets arrive, and how to run there, for each way."""
        return [("eth0", machine.network), (self._ports[machine.name], self._run)]

    def close(self) -> None:
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.close()
        self._holder.wait(timeout=20)
        self._holder.stdout.close()
        # The kernel takes a namespace down a little later than its last process.
        gone = ["ip", "link", "show", f"distrun{self.number}"]
        wait_until(lambda: subprocess.run(gone, capture_output=True).returncode, 20, "the link")


def _settings(machine: Machine) -> str:
    """Return what tests change of a machine's network, as ip prints it."""
    addresses = machine.ip("addr", "show", "dev", "eth0", "scope", "global")
    routes = [machine.ip(family, "route", "show", "table", "main") for family in ("-4", "-6")]
    lines = [line for each in routes for line in each.splitlines()]
    return addresses + "\n".join(line for line in lines if not line.startswith("fe80"))
