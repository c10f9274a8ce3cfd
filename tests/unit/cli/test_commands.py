"""Words that are no command, and the help of all that are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distrun.cli import help_groups
from distrun.cli.app import app
from distrun.errors import UsageError
from tests.unit.cli.commands import command_of, printed


def all_commands() -> Iterator[tuple[str, ...]]:
    def below(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield names
        for name, one in getattr(command, "commands", {}).items():
            yield from below(one, (*names, name))

    yield from below(command_of(app), ())


@pytest.mark.parametrize(
    ("typed", "says", "hint"),
    [
        ("train.py --x 'a b' --lr=1", "'train.py' is a script",
         "distrun launch train.py --x 'a b' --lr=1"),
        ("'my train.py'", "is a script", "distrun launch 'my train.py'"),
        ("./tool", "'./tool' is a script", "distrun launch ./tool"),
        ("--nodes 2 train.py", "--nodes is an option of launch",
         "distrun launch --nodes 2 train.py"),
        ("--debug --nproc_per_node=2 t.py", "--nproc-per-node is an option of launch",
         "distrun launch --debug --nproc_per_node=2 t.py"),
        ("lanch --nodes 2 train.py", "did you mean 'launch'?", "distrun launch --nodes 2 train.py"),
        ("recipes lst", "there is no command 'lst'; did you mean 'list'?", "distrun recipes list"),
        ("bench-comm compar a b", "did you mean 'compare'?", "distrun bench-comm compare a b"),
        ("bench-comm --json 'my r.json'", "'my r.json' is no command; a file", "-o 'my r.json'"),
        ("config scheme", "did you mean 'schema'?", "distrun config schema"),
        ("xyz", "there is no command 'xyz'", "one of: launch, ps, "),
    ],
)  # fmt: skip
def test_a_word_that_is_no_command_is_answered_with_the_line_that_was_meant(
    typed: str, says: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tool").touch()
    with pytest.raises(UsageError) as refused:
        command_of(app).main(shlex.split(typed), prog_name="distrun", standalone_mode=False)
    assert says in refused.value.message
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize("names", list(all_commands()), ids=" ".join)
def test_help_is_whole_on_80_columns(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(app, [*names, "--help"], capsys)
    assert text.startswith(" ".join(["Usage: distrun", *names]))
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("[ARGS]...", "").replace("[FILE]...", "").replace(
        "RECIPE...", ""
    ), "a sentence is cut"


@pytest.mark.parametrize("name", ["launch", "check", "bench-comm"])
def test_every_option_stands_in_a_group(name: str) -> None:
    groups = {"launch": help_groups.LAUNCH, "check": help_groups.CHECK}
    groups["bench-comm"] = help_groups.BENCH
    grouped = [param for names in groups[name].values() for param in names]
    assert len(grouped) == len(set(grouped))
    params = {param.name for param in command_of(app, name).params if not param.hidden}
    assert params - {"help"} <= set(grouped)
