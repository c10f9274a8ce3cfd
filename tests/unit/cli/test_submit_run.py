"""The launch inside a job: its words, and the flags for Slurm that are no words of it."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.cli.submit_run import refuse_slurm_flags, slurm_table, words_in_job
from distrun.errors import UsageError

NOTHING: dict[str, Any] = {"script": "train.py", "args": [], "check": True, "report": True}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["train.py"]),
        ({"args": ["--lr", "a b", ""]}, ["train.py", "--lr", "a b", ""]),
        ({"nodes": "2", "on": "slurm", "partition": "gpu", "time": "2h"}, ["train.py"]),
        ({"requeue": True, "sbatch": ["a=b"], "qos": "q"}, ["train.py"]),
        ({"nproc_per_node": "4"}, ["--nproc-per-node=4", "train.py"]),
        ({"check": False}, ["--no-check", "train.py"]),
        ({"report": False}, ["--no-report", "train.py"]),
        ({"strict": True, "no_python": True}, ["--strict", "--no-python", "train.py"]),
        ({"env": ["A=1", "B= x=y"]}, ["--env=A=1", "--env=B= x=y", "train.py"]),
        ({"env": ["HF_TOKEN=hunter2", "A=1"]}, ["--env=A=1", "train.py"]),
        ({"time_limit": "5m", "gpus": None, "grace": "3"}, ["--time-limit=5m", "--grace=3",
                                                          "train.py"]),
        ({"runs_dir": "-odd"}, ["--runs-dir=-odd", "train.py"]),
    ],
)  # fmt: skip
def test_the_words_of_the_launch_in_the_job(given: dict[str, Any], words: list[str]) -> None:
    assert words_in_job({**NOTHING, **given}) == words


def test_a_config_file_that_was_named_is_named_again() -> None:
    assert words_in_job(NOTHING, "my conf.toml") == ["--config=my conf.toml", "train.py"]


def test_flags_for_slurm_become_their_table() -> None:
    flags: dict[str, Any] = {"time": "2h", "sbatch": ["mem=4G", "contiguous"], "nodes": "2"}
    assert slurm_table(flags) == ["--time", "--sbatch"]
    table = {"time": "2h", "sbatch": {"mem": "4G", "contiguous": ""}}
    assert flags == {"nodes": "2", "slurm": table}


@pytest.mark.parametrize("pair", ["--mem=4G", "=4G", ""])
def test_an_option_of_sbatch_has_a_name_without_dashes(pair: str) -> None:
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        slurm_table({"sbatch": [pair]})


def test_flags_for_slurm_are_refused_where_nothing_is_submitted() -> None:
    refuse_slurm_flags([], "12")
    with pytest.raises(UsageError, match="--time asks Slurm for a job"):
        refuse_slurm_flags(["--time"], "")
    with pytest.raises(UsageError, match="inside Slurm job 12"):
        refuse_slurm_flags(["--time", "--qos"], "12")
