"""KEY=VALUE lines as a shell would read them, and never a secret in an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distrun.errors import UsageError
from distrun.spec.read import env_file


def read(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    path = tmp_path / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return env_file(path)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("A=1", "A", "1"),
        ("  A=1  ", "A", "1"),
        ("A=", "A", ""),
        ('A=""', "A", ""),
        ("export A=1", "A", "1"),
        ("export\tA=1", "A", "1"),
        ("A='a b'", "A", "a b"),
        ('A="a b"', "A", "a b"),
        ('A="it\'s"', "A", "it's"),
        ("A='\"'", "A", '"'),
        ('A="a # b"', "A", "a # b"),
        ("A=1 # one", "A", "1"),
        ("A=b=c", "A", "b=c"),
        ("A=b#c", "A", "b#c"),
        ("A=http://x/#part # don't cut it", "A", "http://x/#part"),
        ("A=#c", "A", "#c"),
        ("\ufeffA=1", "A", "1"),
        ("A=$HOME", "A", "$HOME"),
        ("A='`id`'", "A", "`id`"),
        ("A=\u00e9", "A", "\u00e9"),
        ('A="x\u2028y\x85z\x0cw"', "A", "x\u2028y\x85z\x0cw"),
        ("A=1\r", "A", "1"),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(
    tmp_path: Path, line: str, name: str, value: str
) -> None:
    assert read(tmp_path, line + "\n") == {name: value}


def test_comments_and_empty_lines_count_for_nothing_and_the_last_line_wins(tmp_path: Path) -> None:
    assert read(tmp_path, "# about A\n\n   \nA=1\r\nB=2\r\nA=3") == {"A": "3", "B": "2"}


@pytest.mark.parametrize(
    "line",
    [
        "hunter2",
        "PASSWORD = hunter2",
        "PASSWORD=hunter2 hunter2",
        "=hunter2",
        "PASSWORD='hunter2",
        'PASSWORD="hunter2',
        "PASSWORD=hunter2\\",
        "PASSWORD=hunter2\0",
        "'PASS WORD'=hunter2",
        "-PASSWORD=hunter2",
        "export hunter2",
        "PASSWORD: hunter2",
    ],
)
def test_a_line_that_is_no_assignment_is_named_by_its_number_alone(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, f"A=1\n\n{line}\n")
    assert refused.value.message.endswith(".env', line 3 is not KEY=VALUE")
    assert refused.value.hint == "put quotes around a value with spaces"
    assert "hunter2" not in str(refused.value.__cause__ or "") + refused.value.message
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"A=\xff"), "not UTF-8"),
    ],
    ids=["missing", "directory", "not UTF-8"],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "secrets.env"
    make(path)
    with pytest.raises(UsageError) as refused:
        env_file(path)
    assert refused.value.message == f"env file {str(path)!r}: {said}"
