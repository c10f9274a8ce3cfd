"""The key of a run, and the port where node 0 listens for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun.errors import DistrunError, MachineError, UsageError
from distrun.nodes.dial.key import has_key, key_of, port_of

KEY = "0123456789abcdef" * 2


def test_the_key_comes_from_its_variable_or_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert not has_key({})
    for environ in ({"DISTRUN_DIAL_KEY": KEY}, {"DISTRUN_DIAL_KEY_FILE": str(file)}):
        assert has_key(environ)
        assert key_of(environ) == KEY.encode()


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"short", UsageError, "has 5 characters, at least 32 are needed"),
        (b" \n" * 40, UsageError, "has 0 characters"),
        (None, MachineError, "No such file"),
    ],
)
def test_a_key_that_is_none_is_refused_and_not_printed(
    content: bytes | None, error: type[DistrunError], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=words) as refused:
        key_of({"DISTRUN_DIAL_KEY_FILE": str(file)})
    assert "short" not in refused.value.message
    assert "openssl rand" in refused.value.hint


@pytest.mark.parametrize(("value", "port"), [("", 29501), ("  ", 29501), ("31000", 31000)])
def test_the_port_has_a_default(value: str, port: int) -> None:
    assert port_of({"DISTRUN_DIAL_PORT": value}) == port


@pytest.mark.parametrize("value", ["0", "65536", "http", "-1", "٣١٠٠٠", "1e4"])
def test_a_port_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="DISTRUN_DIAL_PORT"):
        port_of({"DISTRUN_DIAL_PORT": value})
