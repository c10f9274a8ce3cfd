"""The files of OpenSSH that the test's hosts and their client run on: keys, names, accounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PORTS = (22, 2222)
BANNER = "*** Unauthorised use is prohibited. ***"
"""What sshd shows to cora before the login (ssh prints it on stderr)."""
GREETING = "Welcome to {cluster}, cora: maintenance on Monday"
"""What her .cshrc prints on stdout, before any command's own output."""
JSON_GREETING = '{"disk": "ok", "nbytes": 4096}'
"""And then this, which could be a message."""
ACCOUNTS = {  # name: user id, home, shell
    "ada": (20001, "/home/ada", "/bin/sh"),
    "cora": (20002, "/home/cora", "/bin/csh"),
    "nemo": (20003, "/nonexistent", "/bin/sh"),
}


def make_key(path: Path) -> Path:
    """Make a key pair, if it is not there yet."""
    if not path.exists():
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(words, check=True, timeout=20)
    return path


def account_files() -> dict[str, str]:
    """Return /etc/passwd and /etc/group of a host: this machine's, and the accounts."""
    users, groups = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    for name, (number, home, shell) in ACCOUNTS.items():
        users += f"{name}:x:{number}:{number}::{home}:{shell}\n"
        groups += f"{name}:x:{number}:\n"
    return {"/etc/passwd": users, "/etc/group": groups}


def furnish(root: Path, key: Path) -> None:
    """Make what logins need in the private directories of a host."""
    (root / "run/sshd").mkdir(mode=0o755)  # where sshd locks itself up
    keys = root / "run/authorized_keys"  # readable for every account
    shutil.copy(f"{key}.pub", keys)
    keys.chmod(0o644)
    for name, (number, home, shell) in ACCOUNTS.items():
        if name != "nemo":
            at = root / home.lstrip("/")
            at.mkdir(mode=0o700)
            if shell.endswith("csh"):
                (at / ".cshrc").write_text(f"echo '{GREETING}'\necho '{JSON_GREETING}'\n")
            for path in (at, *at.iterdir()):
                os.chown(path, number, number)


def sshd_config(name: str, directory: Path) -> str:
    """Return the settings of a host's daemon; what is not named is as the distribution has it."""
    (directory / "banner").write_text(f"{BANNER}\n")
    lines = [
        *(f"Port {port}" for port in PORTS),
        f"HostKey {directory / f'host_key_{name}'}",
        "AuthorizedKeysFile /run/authorized_keys",
        "PidFile none",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "Match User cora",
        f"  Banner {directory / 'banner'}",
    ]
    return "\n".join(lines) + "\n"


def client_config(addresses: Mapping[str, str], directory: Path) -> str:
    """Return the configuration of ssh.

    Args:
        addresses: Of every name.
        directory: Where the keys are.
    """
    first = next(iter(addresses.values()))
    special: dict[str, dict[str, object]] = {
        "stranger": {"HostName": first, "HostKeyAlias": "stranger"},
        "changed": {"HostName": first, "HostKeyAlias": "changed"},
        "unknown-key": {"HostName": first, "IdentityFile": directory / "other"},
        "refused": {"HostName": first, "Port": 9},
    }
    names: dict[str, dict[str, object]] = {
        name: {"HostName": address} for name, address in addresses.items()
    }
    lines = []
    for name, settings in {**special, **names}.items():
        lines += [f"Host {name}", *(f"  {key} {value}" for key, value in settings.items())]
    lines += ["Host * !unknown-key", f"  IdentityFile {directory / 'own'}"]
    lines += ["Host *", "  User root", "  IdentitiesOnly yes", "  UpdateHostKeys no"]
    lines += [f"  UserKnownHostsFile {directory / 'known_hosts'}"]
    lines += ["  GlobalKnownHostsFile /dev/null"]
    return "\n".join(lines) + "\n"


def known_hosts(addresses: Mapping[str, tuple[str, ...]], directory: Path) -> str:
    """Return the known hosts: the key of each host by its name and addresses, on every port."""
    lines = []
    for name, known_as in addresses.items():
        key = (directory / f"host_key_{name}.pub").read_text().split()[:2]
        patterns = [*known_as, *(f"[{each}]:{port}" for each in known_as for port in PORTS)]
        lines.append(" ".join([",".join(patterns), *key]))
    wrong = (directory / "other.pub").read_text().split()[:2]
    return "\n".join([*lines, " ".join(["changed", *wrong])]) + "\n"


def write_client(directory: Path) -> None:
    """Write the `ssh` that reads the test's configuration."""
    ssh = directory / "bin" / "ssh"
    ssh.parent.mkdir(exist_ok=True)
    real = shutil.which("ssh")
    ssh.write_text(f'#!/bin/sh\nexec {real} -F {directory / "ssh_config"} "$@"\n')
    ssh.chmod(0o755)
