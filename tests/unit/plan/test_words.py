"""The launch in a pod has the settings of this one, wherever they came from."""

from __future__ import annotations

from typing import Any

import pytest

from distrun.plan.words import launch_words
from distrun.spec import read
from distrun.spec.job import Job

OWN = ["--grace=30s", "--runs-dir=/runs", "--json"]


def words(*, source: str = "flag", script: str = "train.py", **fields: Any) -> list[str]:
    job = read.validated(Job, {"script": "train.py", **fields}, "flag")
    return launch_words(job, dict.fromkeys(fields, source), "/runs", script)


@pytest.mark.parametrize("source", ["flag", "config file pyproject.toml", "argument"])
@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({"nodes": "2"}, ["--nodes=2"]),
        ({"nodes": "2:4"}, ["--nodes=2:4"]),
        ({"nodes": "1"}, []),
        ({"nproc_per_node": "4", "strategy": "fsdp"}, ["--nproc-per-node=4", "--strategy=fsdp"]),
        ({"gpus": "free:2", "max_restarts": 3}, ["--gpus=free:2", "--max-restarts=3"]),
        ({"time_limit": "2h", "linger": "0.5"}, ["--time-limit=7200s", "--linger=0.5s"]),
        ({"hang_timeout": "0"}, ["--hang-timeout=0s"]),
        ({"join_timeout": "0.00001"}, ["--join-timeout=0.00001s"]),
        ({"start_method": "spawn", "on_hang": "observe"}, ["--start-method=spawn",
                                                           "--on-hang=observe"]),
        ({"check": False, "strict": True, "module": True}, ["--module", "--strict", "--no-check"]),
        ({"master_port": 7, "interface": "eth1"}, ["--interface=eth1", "--master-port=7"]),
    ],
)  # fmt: skip
def test_a_setting_is_a_flag(fields: dict[str, Any], flags: list[str], source: str) -> None:
    assert words(source=source, **fields) == [*flags, *OWN, "train.py"]


def test_what_the_recipe_says_of_itself_it_says_there_too() -> None:
    assert words(source="recipe header", strategy="ddp") == [*OWN, "train.py"]


def test_settings_of_this_machine_stay_here() -> None:
    here = {"hosts": "a,b", "python": "/x", "workdir": "/y", "sync": True, "on": "ssh"}
    assert words(**here, runs_dir="elsewhere", env_file="secrets.env") == [*OWN, "train.py"]


def test_the_grace_is_told_since_an_image_may_have_another_default() -> None:
    assert words(grace="2m")[0] == "--grace=120s"


def test_a_secret_variable_is_no_word() -> None:
    given = words(env={"A": "x y", "HF_TOKEN": "hunter2", "B": ""})
    assert [word for word in given if "env" in word] == ["--env=A=x y", "--env=B="]


def test_the_arguments_of_the_script_are_untouched() -> None:
    assert words(args=("--nodes", "-", "", "a b"))[-5:] == ["train.py", "--nodes", "-", "", "a b"]


def test_a_script_that_looks_like_an_option_is_none() -> None:
    assert words(script="-x.py")[-1] == "./-x.py"
