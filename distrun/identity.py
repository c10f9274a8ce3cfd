"""What tells a machine, and a directory on it, from all others."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the id of this machine's current boot; "" where the kernel has none (Linux has)."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def directory_id(directory: Path) -> list[object]:
    """Return what tells a directory from all others of all machines; [] if that is unknown."""
    try:
        facts = directory.stat()
    except OSError:
        return []
    boot = boot_id()
    return [boot, facts.st_dev, facts.st_ino] if boot else []
