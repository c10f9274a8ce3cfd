"""Small /proc, /sys and /dev of imaginary machines."""

from __future__ import annotations

from pathlib import Path


def grow(root: Path, files: dict[str, str]) -> Path:
    """Write files below a root, with the folders that they need."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root
