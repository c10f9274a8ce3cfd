"""The command lines of distrun that stand in the pages, and the flags that commands take."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrun.cli.app import app
from distrun.cli.torchrun_options import OPTIONS
from tests.unit.cli.commands import command_of
from tests.unit.docs.pages import ROOT, Block, blocks_of

_LANGUAGES = ("console", "bash")
_VARIABLES = re.compile(r"^(?:[A-Z_]+=\S* +)+")


@dataclass(frozen=True)
class CommandLine:
    """A line that runs distrun."""

    block: Block
    text: str
    """From the word `distrun` on."""


def flags_of(command: Any) -> dict[str, bool]:
    """Return the flags of a command; True for one that takes a value."""
    return {
        name: not getattr(param, "is_flag", False)
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("-")
    } | {"-h": False, "--help": False}


@functools.cache
def all_flags() -> set[str]:
    """Return the flags of all commands, and torchrun's, which `launch` takes."""

    def below(command: Any) -> Iterator[str]:
        yield from flags_of(command)
        for one in getattr(command, "commands", {}).values():
            yield from below(one)

    underscored = {name.replace("-", "_").replace("__", "--", 1) for name in OPTIONS}
    return {*below(command_of(app)), *OPTIONS, *underscored}


def command_lines(page: Path) -> Iterator[CommandLine]:
    """Yield every line of a page's blocks that runs distrun, behind `&&` and variables too."""
    for block in blocks_of(page):
        if block.language not in _LANGUAGES:
            continue
        for line in block.text.splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue
            for part in re.split(r" (?:&&|\|) ", line.removeprefix("$ ")):
                words = _VARIABLES.sub("", part)
                if match := re.match("distrun .*", words) or re.search(_inside(), words):
                    yield CommandLine(block, match[0])


@functools.cache
def _inside() -> str:
    """Return a pattern of distrun's command behind that of another program."""
    return rf"distrun (?:{'|'.join(command_of(app).commands)})\b.*"


def unknown_words(line: str) -> list[str]:
    """Return the commands and flags of a line that distrun does not have."""
    command: Any = command_of(app)
    words = shlex.split(line, comments=True)[1:]
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return [words[0]] if command.name == "distrun" else []
        command = command.commands[words.pop(0)]
    if command.context_settings.get("ignore_unknown_options"):
        return []  # they are those of a recipe
    return list(_unknown_flags(words, flags_of(command), stops=command.name == "launch"))


def recipe_flags() -> set[str]:
    """Return the flags of all recipes: the fields of their settings."""
    found = set()
    for file in (ROOT / "distrun" / "train" / "config.py", *sorted(ROOT.glob("recipes/*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
                found |= {
                    each.id.replace("_", "-") for each in fields if isinstance(each, ast.Name)
                }
    return {f"--{prefix}{name}" for name in found for prefix in ("", "no-")}


def _unknown_flags(words: list[str], known: Mapping[str, bool], *, stops: bool) -> Iterator[str]:
    while words:
        word = words.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            if stops:  # the script: all behind it is its own
                return
        elif name not in known:
            yield name
        elif known[name] and not equals and words:
            words.pop(0)
