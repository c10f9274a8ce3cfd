"""Writes plain data as YAML, with comments: a small part of YAML 1.2 that YAML 1.1 reads the same.

A text is written bare only if it begins with a letter and is no word that a reader takes for
something else; else in double quotes, where JSON's escapes hold (https://yaml.org/spec/1.2.2/#57).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distrun.errors import UsageError

Path = tuple[str | int, ...]
Comment = Callable[[Path], str]
"""Path of a key, or of an entry of a list -> the comment above it, "" for none."""
_BARE = re.compile(r"(?:--?)?[A-Za-z/](?:[\w./@+=~-]|:(?=[\w./@+=~-]))*", re.ASCII)
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def document(data: Mapping[str, Any], comment: Comment = lambda _: "") -> str:
    """Return a mapping as a YAML document.

    Args:
        data: JSON: mappings with text as keys, lists, text, numbers, booleans, None.
        comment: What is said above a key, and above an entry of a list.

    Raises:
        UsageError: A text is not Unicode.
    """
    return "\n".join(_mapping(data, (), "", comment)) + "\n"


def comment_lines(text: str, indent: str = "") -> list[str]:
    """Return a text as comments, also if it holds line breaks."""
    lines = text.split("\n") if text else []
    return [f"{indent}# {_printable(line)}".rstrip() for line in lines]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _mapping(data: Mapping[str, Any], path: Path, indent: str, comment: Comment) -> Iterator[str]:
    for key, value in data.items():
        here = (*path, key)
        yield from comment_lines(comment(here), indent)
        yield from _entry(f"{indent}{scalar(key)}:", value, here, indent, comment)


def _entry(start: str, value: Any, path: Path, indent: str, comment: Comment) -> Iterator[str]:
    """Yield a value behind its key."""
    if isinstance(value, Mapping) and value:
        yield start
        yield from _mapping(value, path, indent + "  ", comment)
    elif isinstance(value, list) and value:
        yield start
        yield from _list(value, path, indent + "  ", comment)
    elif isinstance(value, str) and (block := _block(value, indent + "  ")):
        yield f"{start} {block[0]}"
        yield from block[1:]
    else:
        yield f"{start} {scalar(value)}"


def _list(values: list[Any], path: Path, indent: str, comment: Comment) -> Iterator[str]:
    for index, value in enumerate(values):
        here = (*path, index)
        yield from comment_lines(comment(here), indent)
        if isinstance(value, Mapping) and value:
            lines = list(_mapping(value, here, indent + "  ", comment))
            first = next(i for i, line in enumerate(lines) if not line.lstrip().startswith("#"))
            yield from (indent + line[len(indent) + 2 :] for line in lines[:first])
            yield f"{indent}- {lines[first][len(indent) + 2 :]}"
            yield from lines[first + 1 :]
        elif isinstance(value, list) and value:
            lines = list(_list(value, here, indent + "  ", comment))
            yield f"{indent}- {lines[0][len(indent) + 2 :]}"
            yield from lines[1:]
        else:
            yield f"{indent}- {scalar(value)}"


def scalar(value: Any) -> str:
    """Return a text, a number, a boolean, None, or an empty list or mapping on one line.

    Raises:
        UsageError: A text is not Unicode.
    """
    if isinstance(value, str):
        return value if _is_bare(value) else _quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _is_bare(text: str) -> bool:
    return bool(_BARE.fullmatch(text)) and text.lower() not in _WORDS


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not Unicode", "YAML holds Unicode alone") from None
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _block(text: str, indent: str) -> list[str]:
    """Return a text of several lines as a literal block; [] if it does not read the same."""
    if "\n" not in text.rstrip("\n") or text[0] in " \t\n":
        return []
    if not all(char.isprintable() or char in "\n\t" for char in text):
        return []
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    header = "|" + ("-" if ends == 0 else "" if ends == 1 else "+")
    if any(line and not line.strip() for line in body.split("\n")):
        return []  # a line of blanks alone
    lines = (text[:-1] if ends else text).split("\n")
    return [header, *(f"{indent}{line}" if line else "" for line in lines)]
