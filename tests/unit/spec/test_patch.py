"""Files of `--patch`: JSON and YAML mappings, and whatever else such a file may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrun import extras
from distrun.errors import UsageError
from distrun.spec import patch as patch_module
from distrun.spec.patch import read_patches

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "patch.yaml"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"spec": {"a": null, "b": [1, "x", true]}}',
         [{"spec": {"a": None, "b": [1, "x", True]}}]),
        ("spec:\n  a: ~\n", [{"spec": {"a": None}}]),
        ("a: 1\n---\n---\nkind: Service\n", [{"a": 1}, {"kind": "Service"}]),
        ("\ufeff{a: 1}", [{"a": 1}]),
    ],
)  # fmt: skip
def test_the_mappings_of_a_file_are_read(file: Path, text: str, found: object) -> None:
    file.write_text(text, encoding="utf-8")
    assert read_patches(file) == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"# nothing\n", "it is empty"),
        (b"[1, 2]", "it holds [1, 2] instead of a mapping"),
        (b"text", "it holds 'text' instead of a mapping"),
        (b"{}", "it holds {} instead of a mapping"),
        (b'{"a": ', "it is not YAML in line"),
        (b"a: b: c", "it is not YAML in line 1"),
        (b"a: !!python/object/apply:os.system [x]", "it is not YAML in line 1"),
        (b"on: true", "the key True is not text"),
        (b"spec: {1: 2}", "the key 1 is not text"),
        (b"a: 2026-11-29", "2026-11-29 is not text"),
        (b"a: 2026-99-99", "it is not YAML"),
        (b"a: \xff", "it is not UTF-8"),
        (b"a: " + b"x" * (1 << 20), "it is larger than the limit of 1048576 bytes"),
        (b"{" * 100_000, "it is not YAML"),
        (LAUGHS.encode(), "it holds more than 100000 values"),
        (b"a: &a [*a]", "it is nested more than 40 deep"),
    ],
)
def test_what_is_no_mapping_is_refused(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_patches(file)
    assert f"--patch {str(file)!r}: {said}" in caught.value.message
    assert "a part of an object in YAML or JSON" in caught.value.hint
    assert len(caught.value.message) < 300


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        read_patches(file)
    with pytest.raises(UsageError, match="Is a directory"):
        read_patches(file.parent)


def test_without_pyyaml_json_is_read_and_yaml_is_refused_with_the_cure(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert patch_module.missing is extras.missing
    file.write_text('{"a": 1}')
    assert read_patches(file) == [{"a": 1}]
    file.write_text("a: 1")
    with pytest.raises(UsageError, match="YAML needs PyYAML") as caught:
        read_patches(file)
    assert "[kubernetes]" in caught.value.hint
