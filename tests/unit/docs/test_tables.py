"""The tables of the pages are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from distrun import env
from distrun.api import LaunchResult
from distrun.api.recipes import NAMES
from distrun.checks.rule import Severity
from distrun.diagnose.cure_table import CURES
from distrun.diagnose.hang.findings import Kind
from distrun.errors import ExitCode
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from tests.unit.docs import cures
from tests.unit.docs.pages import PAGES, ROOT, names_in, table_below

_DOCS = ROOT / "docs"
_RUN_DIRECTORY = _DOCS / "run-directory.md"
_TELL = ("tell", "_tell")
_NOT_TOLD = {"silent"}
"""Of the client alone: no line of `--json`."""
_PASSED_ON = {"metrics"}
"""Of a rank, told as it comes."""
_QUIT = 131  # 128 + SIGQUIT: like other signals it has no name of its own in ExitCode


def trees(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for file in sorted((ROOT / "distrun" / folder).rglob("*.py")):
            yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def literal(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def told_events() -> Iterator[str]:
    """Yield the names of events in the code that tells of them."""
    for node in trees("supervise"):
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
            if node.func.attr in _TELL:
                yield literal(node.args[0])
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            yield literal(node.value.elts[0])
        elif isinstance(node, ast.Assign) and "_TOLD_AS_IT_IS" in ast.unparse(node.targets[0]):
            yield from map(literal, getattr(node.value, "elts", ()))
    for node in trees("supervise", "api", "cli"):
        if isinstance(node, ast.Dict) and node.keys and literal(node.keys[0]) == "event":
            yield literal(node.values[0])


def test_the_exit_codes_are_those_of_the_code() -> None:
    first = [cell for (cell,) in table_below(_DOCS / "exit-codes.md", "# Exit codes")]
    numbers = {int(number) for cell in first for number in re.findall(r"\d+", cell)}
    assert numbers == {int(code) for code in ExitCode} | {_QUIT}


def test_the_events_are_those_that_the_code_tells() -> None:
    named = names_in(table_below(_RUN_DIRECTORY, "## Events"))
    assert named == {name for name in told_events() if name} - _NOT_TOLD | _PASSED_ON


def test_the_fields_of_the_record_are_those_of_the_code() -> None:
    named = names_in(table_below(_RUN_DIRECTORY, "## run.json"))
    assert named == {field.name for field in fields(RunRecord)}


def test_the_files_of_a_run_are_those_that_the_code_writes() -> None:
    run = RunDirectory(Path("/runs/r"))
    found = set()
    for name, member in vars(RunDirectory).items():
        if isinstance(member, property) and name not in ("run_id",):
            found.add("/".join(getattr(run, name).parts))
        elif name in ("log", "streams"):
            found.add("/".join(getattr(run, name)(0, 0).parts))
        elif name in ("agent_log", "error", "stacks", "flight"):
            found.add("/".join(getattr(run, name)(0).parts))
    assert names_in(table_below(_RUN_DIRECTORY, "# The run directory")) == found


def test_every_variable_of_distrun_that_the_code_reads_is_in_the_page() -> None:
    text = _RUN_DIRECTORY.read_text()
    named = set(re.findall(r"`(DISTRUN_[A-Z_]+)", text))
    values = {value for value in vars(env).values() if isinstance(value, str)}
    own = {value for value in values if value.startswith("DISTRUN_")}
    for node in trees("."):
        if re.fullmatch(r"DISTRUN_[A-Z_]+[A-Z]", word := literal(node)):
            own.add(word)
    assert named == own


def test_every_variable_of_distrun_in_any_page_is_read_by_the_code_or_by_the_images() -> None:
    known = set(re.findall(r"DISTRUN_[A-Z_]+", _RUN_DIRECTORY.read_text()))
    for page in PAGES:
        named = set(re.findall(r"DISTRUN_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8")))
        assert named - known <= {"DISTRUN_TEST_CRDS"}, page


def test_the_fields_of_a_launchs_result_are_in_the_page() -> None:
    rows = table_below(_DOCS / "python-api.md", "# From Python")
    assert names_in(rows) - {"logs"} == {field.name for field in fields(LaunchResult)}


def test_the_severities_are_those_of_the_check() -> None:
    rows = table_below(_DOCS / "check.md", "# distrun check")
    assert {name for (name,) in rows} == {severity.name for severity in Severity}


def test_the_kinds_of_a_hang_are_those_of_the_code() -> None:
    rows = table_below(_DOCS / "hangs.md", "`waiting`, `waited_s`, `cycle` and `note`.")
    kinds: Any = get_args(Kind)
    assert names_in(rows) == set(kinds)


def test_the_recipes_are_those_that_there_are() -> None:
    rows = table_below(_DOCS / "recipes.md", "# Recipes")
    assert [name.strip("`") for (name,) in rows] == [f"{name}.py" for name in NAMES]


def test_the_rooms_are_those_that_there_are() -> None:
    text = (_DOCS / "architecture.md").read_text()
    named = set(re.findall(r"^  (\w+)/ ", text, flags=re.M))
    rooms = {p.name for p in (ROOT / "distrun").iterdir() if (p / "__init__.py").is_file()}
    assert named == rooms


def test_the_page_of_known_errors_is_made_of_the_table_of_cures() -> None:
    assert tuple(cure for part in cures.SECTIONS.values() for cure in part) == CURES
    assert cures.PAGE.read_text() == cures.page(), "python -m tests.unit.docs.cures"
