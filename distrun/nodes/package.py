"""distrun itself as a zip, for machines where it is not installed."""

from __future__ import annotations

import base64
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import distrun
from distrun.wire import encoded

_PROBE_ONLY = "probe_only"
"""Directory of what the probe alone may import; see `agent/unpack.py`."""
_CONTROL = {
    *("api", "checks", "cli", "diagnose", "nodes", "plan", "runs", "schedulers", "spec"),
    "supervise",
}
"""Rooms that no program on a node imports; without them the package has half the size."""
_LEFT_OUT = {*_CONTROL, "_recipes", "__pycache__"}


@lru_cache(maxsize=1)
def package() -> bytes:
    """Return what a program that is started with `boot.line_for_sh(…, bootstrap=True)` reads first.

    A message with `nbytes`, and that many bytes of base64: in a stream of commands, NUL bytes may
    come at any place.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source, name in _sources():
            archive.write(source, name)
    text = base64.b64encode(file.getvalue())
    return encoded({"nbytes": len(text)}) + text


def _sources() -> Iterator[tuple[Path, str]]:
    here = Path(distrun.__file__).parent
    for source in sorted(here.rglob("*.py")):
        name = source.relative_to(here.parent)
        if not _LEFT_OUT & set(name.parts[1:-1]):
            yield source, name.as_posix()
    found = importlib.util.find_spec("pynvml")  # one file, and torch does not bring it
    if found is not None and found.origin is not None:
        yield Path(found.origin), f"{_PROBE_ONLY}/pynvml.py"
