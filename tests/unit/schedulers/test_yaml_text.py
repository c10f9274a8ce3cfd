"""YAML that is read as it was meant, whatever the texts are, and comments that stay comments."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distrun.errors import UsageError
from distrun.schedulers.yaml_text import comment_lines, document, scalar

HOSTILE = [
    *("on", "Yes", "NO", "null", "~", "1e3", "0x1F", "1_000", "1:20", ".inf", "-1", "2026-11-29"),
    *("- x", "a: b", "a #b", "#", "&a", "*a", "!x", "| ", "> ", "%", "@", "`", "{a}", "[a]", "'"),
    *('"', "\\", "", " ", " a", "a ", "a\nb", "a\n\nb\n", "\ta", "a\r\nb", "\x00", "\x7f", "\x85"),
    *(
        "\u2028",
        "\ufeff",
        "é",
        "漢字",
        "😀",
        "a:",
        ":a",
        "?",
        "? a",
        "---",
        "...",
        "<<",
        "=",
        "--a=b",
    ),
    *(
        "$(HOME)",
        "$$",
        "y",
        "n",
        "a\n b\n\n  c",
        "  a\nb",
        "a\n \nb",
        "a\n\n",
        "\n",
        "-",
        "--",
        "0",
    ),
]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(HOSTILE)
SCALARS = st.none() | st.booleans() | st.integers() | TEXTS
DATA = st.dictionaries(
    TEXTS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12
    ),
    min_size=1,
)


@settings(max_examples=50)
@given(DATA)
def test_what_is_written_is_read_again(data: dict[str, Any]) -> None:
    assert yaml.safe_load(document(data)) == data


@settings(max_examples=50)
@given(DATA, st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_comment_changes_nothing(data: dict[str, Any], why: str) -> None:
    assert yaml.safe_load(document(data, lambda path: why)) == data


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_itself_as_key_as_value_and_in_a_list(text: str) -> None:
    data = {text: [text, {"a": text}], "b": text}
    assert yaml.safe_load(document(data)) == data


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("images.example.com/ada/distrun:1", "images.example.com/ada/distrun:1"),
        ("--nodes=2", "--nodes=2"),
        ("/dev/shm", "/dev/shm"),
        ("8", '"8"'),
        ("on", '"on"'),
        ("a b", '"a b"'),
        (8, "8"),
        (True, "true"),
        (None, "null"),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_a_plain_text_has_no_quotes_and_a_word_that_yaml_knows_has(
    value: object, written: str
) -> None:
    assert scalar(value) == written


def test_a_script_is_a_block_as_it_would_stand_in_a_file() -> None:
    made = document({"data": {"train.py": "import torch\n\nif True:\n\tprint('a: b')\n"}})
    assert made.splitlines()[1:4] == ["  train.py: |", "    import torch", ""]


def test_comments_stand_above_keys_and_entries_in_their_place() -> None:
    why = {("a",): "one\ntwo", ("a", 0): "first", ("a", 0, "b"): "inner"}
    made = document({"a": [{"b": 1, "c": 2}, [3]]}, lambda path: why.get(path, ""))
    assert made == "# one\n# two\na:\n  # first\n  # inner\n  - b: 1\n    c: 2\n  - - 3\n"


def test_a_comment_that_breaks_its_line_is_still_one() -> None:
    assert comment_lines("a\rb: c\x00") == ["# a\\rb: c\\x00"]


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="is not Unicode"):
        document({"a": "\udcff"})
