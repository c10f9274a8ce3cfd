"""The man page, as man's own programs read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distrun.cli import man
from distrun.cli.app import app
from distrun.errors import ExitCode
from tests.unit.cli.commands import command_of


def programs(*words: str) -> list[str]:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return list(words)


def flags_below(command: Any) -> Iterator[str]:
    for param in command.params:
        if not getattr(param, "hidden", False):
            yield from (name for name in param.opts if name.startswith("--"))
    for one in getattr(command, "commands", {}).values():
        yield from flags_below(one)


def test_every_command_flag_and_exit_code_is_in_the_page() -> None:
    page = man.page().replace(r"\-", "-")
    missing = [flag for flag in flags_below(command_of(app)) if not re.search(rf"{flag}\b", page)]
    assert not missing
    for name in command_of(app).commands:
        assert f".SH {name.upper()}\n" in page
    for code in ExitCode:
        assert rf"\fB{int(code)}\fR" in page


def test_mandoc_has_nothing_to_say_but_that_there_is_no_date(tmp_path: Path) -> None:
    (tmp_path / "distrun.1").write_text(man.page())
    lint = programs("mandoc", "-Tlint", "-W", "style", str(tmp_path / "distrun.1"))
    said = subprocess.run(lint, capture_output=True, text=True, timeout=60).stdout
    assert not [line for line in said.splitlines() if "missing date" not in line]


def test_groff_formats_it_without_a_warning() -> None:
    groff = programs("groff", "-man", "-ww", "-Tutf8")
    done = subprocess.run(groff, input=man.page(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Restarts of a crashed world [0]." in done.stdout


def test_what_roff_would_take_for_a_request_is_text() -> None:
    assert man._text(".json") == r"\&.json"
    assert man._text("'a\\b' -x") == r"\(aqa\(rsb\(aq \-x"
