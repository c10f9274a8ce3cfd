"""The console blocks and the programs of the pages, run as they stand.

A block's commands run one after the other in a directory with the files of its project. Their
output has to be the words of the block, see told.py; no word at all stands for anything. Blocks
that begin with the same command are run as one, each command once. Runs that the commands name were
launched by the commands of a comment; the first name is that of the first run, and so on.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.unit.docs.pages import ORIGINALS, PROJECTS, ROOT, Block, blocks_of
from tests.unit.docs.told import is_as_told

_DEADLINE_S = 30.0
_LOOKS = ("distrun stacks", "distrun ps", "distrun logs", "distrun show")
"""Commands without an effect: they are asked again until they answer what the page says."""
_RUN_NAME = re.compile(r"\b(?=\w*\d)[0-9a-f]{4}\b")
"""The end of the id of a run, by which it can be named."""
_LONG = ("distrun simulate --nodes 512", "distrun report ")
"""Blocks that begin with these launch many nodes, or several runs."""
_BY_HAND = ("python3 -m venv", ". .venv", "pip install", "pip wheel")
"""Set-up, which `.ci/run` does."""


def blocks(language: str) -> Iterator[Block]:
    for page in ORIGINALS:
        for block in blocks_of(page):
            if block.language == language and not block.not_run:
                yield block


def dialogue_of(block: Block, names: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return the commands of a block, without set-up, each with what the page prints below it.

    Args:
        block: The block.
        names: Names of runs in it, and those of the runs that are meant.
    """
    text = _RUN_NAME.sub(lambda found: names.get(found[0], found[0]), block.text)
    parts = re.split(r"^\$ (.*)\n", text, flags=re.M)[1:]
    return {_without_set_up(line): told for line, told in zip(parts[::2], parts[1::2], strict=True)}


def _without_set_up(line: str) -> str:
    return " && ".join(part for part in line.split(" && ") if not part.startswith(_BY_HAND))


def consoles() -> Iterator[list[Block]]:
    """Yield the blocks that run distrun, those that begin with the same command together."""
    found: dict[tuple[str, str, str], list[Block]] = {}
    for block in blocks("console"):
        dialogue = dialogue_of(block)
        if any(command.startswith("distrun ") for command in dialogue):
            key = (block.project, block.before, next(iter(dialogue)))
            found.setdefault(key, []).append(block)
    yield from found.values()


def cases() -> Iterator[object]:
    """Yield the consoles as cases; those that take long are marked."""
    for same in consoles():
        is_long = next(iter(dialogue_of(same[0]))).startswith(_LONG)
        yield pytest.param(same, marks=[pytest.mark.long] if is_long else [])


def programs() -> list[Block]:
    """Return the whole programs in Python; pytest's are run by test_pytest_plugin.py."""
    starts = ("from ", "import ")
    return [b for b in blocks("python") if b.text.startswith(starts) and "pytest" not in b.text]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A directory as a user has it, with distrun on PATH; a run that goes on is stopped."""
    here = tmp_path / "project"
    here.mkdir()
    for name in ("recipes", "tests"):  # of the clone
        (here / name).symlink_to(ROOT / name)
    program = tmp_path / "bin" / "distrun"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m distrun "$@"\n')
    program.chmod(0o755)
    yield here
    if (here / "runs").is_dir():
        run("distrun stop --force", here)


def prepared(block: Block, here: Path) -> Path:
    if block.project:
        shutil.copytree(PROJECTS / block.project, here, dirs_exist_ok=True)
    return here


def launched_before(block: Block, here: Path) -> dict[str, str]:
    """Run what has to be there before a block; return the names of runs by those on the page."""
    for command in filter(None, block.before.split("; ")):
        run(command, here)
    commands = " ".join(re.findall(r"(?m)^\$ (.*)", block.text))
    named = dict.fromkeys(_RUN_NAME.findall(commands))
    runs = sorted((here / "runs").glob("*/run.json"), key=lambda file: file.parent.name)
    return dict(zip(named, (file.parent.name[-4:] for file in runs), strict=False))


def run(command: str, here: Path, environ: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run a line of the shell on two cores; return what it has printed."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("the pages are of a machine with two cores")
    path = f"{here.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), "bash", "-c", command],
        cwd=here,
        env={**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.stdout


def answer(command: str, told: set[str], here: Path, environ: Mapping[str, str]) -> str:
    """Return what a command prints; one that only looks is asked until that is as told."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        printed = run(command, here, environ)
        patient = command.startswith(_LOOKS) and time.monotonic() < deadline
        if not patient or all(is_as_told(printed, one) for one in told):
            return printed
        time.sleep(0.2)  # the clock only paces the asking


@pytest.mark.ci_cases(40)
@pytest.mark.parametrize("same", list(cases()), ids=lambda same: str(same[0]))
def test_a_console_block_prints_what_the_page_says(same: list[Block], project: Path) -> None:
    here = prepared(same[0], project)
    names = launched_before(same[0], here)
    dialogues = {str(block): dialogue_of(block, names) for block in same}
    environ: dict[str, str] = {}
    for command in dict.fromkeys(command for found in dialogues.values() for command in found):
        if command.startswith("export "):
            environ |= dict(word.split("=", 1) for word in shlex.split(command)[1:])
            continue
        told = {name: found[command] for name, found in dialogues.items() if command in found}
        printed = answer(command, set(told.values()), here, environ)
        for name, words in told.items():
            assert is_as_told(printed, words), f"{name}: {command}\n{printed}\nis not\n{words}"


@pytest.mark.ci_cases(10)
@pytest.mark.parametrize("block", programs(), ids=str)
def test_a_program_of_a_page_runs_to_its_end(block: Block, project: Path) -> None:
    here = prepared(block, project)
    (here / "program.py").write_text(block.text)
    printed = run(f"{shlex.quote(sys.executable)} program.py || echo it FAILED", here)
    assert "it FAILED" not in printed, printed


def test_other_words_than_those_of_the_page_are_noticed() -> None:
    told = "rank 2: loss 0.25 …\nexit code 1 after 3 s"
    assert is_as_told("rank 2:   loss 0.31 and so on\nexit code 1 after 14.5 s\n", told)
    assert not is_as_told("rank 3: loss 0.31 and so on\nexit code 1 after 14.5 s\n", told)
    assert not is_as_told("rank 2: loss 0.31 and so on\nexit code 2 after 14.5 s\n", told)
    assert not is_as_told("rank 2: loss 0.31\nexit code 1 after 3 s\nand more", told)
