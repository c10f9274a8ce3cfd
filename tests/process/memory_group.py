"""A control group with a memory limit, version 1 or 2."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import wait_until

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit_nbytes: int) -> Iterator[Path]:
    """Yield the file to which a process writes its pid to be limited; the group goes after."""
    v1 = (_ROOT / "memory").is_dir()
    group = (_ROOT / "memory" if v1 else _ROOT) / f"distrun-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if v1 else "memory.max")
        limit.write_text(str(limit_nbytes))
    except OSError as error:
        pytest.skip(f"no memory group can be made: {error.strerror}")
    try:
        yield group / "cgroup.procs"
    finally:
        procs = group / "cgroup.procs"
        wait_until(lambda: not procs.read_text().split(), 20, f"an empty {group}")
        group.rmdir()
