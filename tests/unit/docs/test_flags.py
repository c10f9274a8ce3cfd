"""Every command and flag that a page names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distrun.cli.app import app
from distrun.cli.torchrun_options import OPTIONS
from tests.unit.cli.commands import command_of
from tests.unit.docs.command_lines import (
    all_flags,
    command_lines,
    flags_of,
    recipe_flags,
    unknown_words,
)
from tests.unit.docs.pages import PAGES, ROOT, names_in, spans_of, table_below

_OTHERS = {
    "accelerate": "--num_machines --num_processes --gpu_ids --deepspeed_hostfile --machine_rank"
    " --main_process_ip --main_process_port --max_restarts --log_dir --tee --module --no_python"
    " --mixed_precision",
    "deepspeed": "--num_nodes --num_gpus --include --hostfile --node_rank --master_addr"
    " --master_port --enable_each_rank_log --module --no_python --local_rank",
    "docker, podman": "--cpus --cpuset-cpus --memory --pids-limit --shm-size --ipc --tmpfs --gpus",
    "slurm": "--overlap --jobid",
    "kubectl": "--type --strict",
    "openmpi": "--map-by",
    "benchmarks": "--instructions",
    "pytest, ruff": "--all-cases --check --ci",
    "estimate of a model without a recipe": "--preset --rows --shard --ep --zero --loss-chunks",
}
"""Flags of other tools that pages name."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_has_known_commands_and_flags(page: Path) -> None:
    wrong = [
        f"{line.block}: {line.text}: {unknown}"
        for line in command_lines(page)
        if (unknown := unknown_words(line.text))
    ]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_in_the_text_is_one_of_distrun_or_of_a_tool_that_is_listed(page: Path) -> None:
    known = all_flags() | recipe_flags() | {f for flags in _OTHERS.values() for f in flags.split()}
    named = {flag for span in spans_of(page) for flag in re.findall(r"(?<!\S)--[\w-]+", span)}
    assert not named - known


def test_a_command_line_with_a_flag_that_is_gone_is_noticed() -> None:
    assert unknown_words("distrun launch --node 2 train.py --node") == ["--node"]
    assert unknown_words("distrun recipes copy --forced x") == ["--forced"]
    assert unknown_words("distrun lanch x") == ["lanch"]
    assert not unknown_words("distrun launch --nodes 2 --env=A=b -m train --whatever")


def test_the_page_of_launch_has_each_of_its_flags() -> None:
    told = " ".join(
        (ROOT / "docs" / name).read_text()
        for name in ("launch.md", "clusters.md", "kubernetes.md", "containers.md", "hangs.md")
    )
    flags = {flag for flag in flags_of(command_of(app, "launch")) if flag.startswith("--")}
    defaults = {flag.replace("--no-", "--", 1) for flag in flags if flag.startswith("--no-")}
    assert not {flag for flag in flags if not re.search(rf"{flag}\b", told)} - {"--help"} - defaults


@pytest.mark.parametrize(("name", "page"), [("check", "check.md"), ("bench-comm", "bench-comm.md")])
def test_the_page_of_a_command_has_each_of_its_own_flags(name: str, page: str) -> None:
    told = (ROOT / "docs" / page).read_text() + (ROOT / "docs" / "clusters.md").read_text()
    of_launch = {*flags_of(command_of(app, "launch")), "--check", "--output", "--ops", "--help"}
    own = {flag for flag in flags_of(command_of(app, name)) if flag.startswith("--")} - of_launch
    assert not {flag for flag in own if not re.search(rf"{flag}\b", told)}


def test_the_table_for_torchrun_has_each_of_its_options() -> None:
    rows = table_below(ROOT / "docs" / "launch.md", "## From a torchrun command")
    assert names_in(rows) == set(OPTIONS)


def test_what_the_readme_says_of_accelerate_is_what_it_takes() -> None:
    launch = pytest.importorskip("accelerate.commands.launch")
    taken = {f for action in launch.launch_command_parser()._actions for f in action.option_strings}
    assert set(_OTHERS["accelerate"].split()) <= taken
