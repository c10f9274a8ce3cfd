"""Which scheduler a job has, and what each runs here to speak with a program there."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.schedulers import local, slurm, ssh
from distrun.schedulers.place import Place
from distrun.schedulers.registry import NAMES, SUBMITTED, name_of, opened, scheduler
from distrun.spec import read
from distrun.spec.job import Settings

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "gpu[1-2]"}
HOSTILE = "a'b \"$HOME `id`; é"


def settings(**fields: Any) -> Settings:
    return read.validated(Settings, fields, "flag")


@pytest.mark.parametrize(
    ("fields", "environ", "name"),
    [
        ({}, {}, "local"),
        ({"hosts": "a,b"}, {}, "ssh"),
        ({"hosts": "a,b", "on": "ssh"}, JOB, "ssh"),
        ({"hosts": "gpu1"}, JOB, "slurm"),
        ({"hosts": "gpu[1-2]"}, JOB, "slurm"),
        ({}, JOB, "slurm"),
        ({"on": "local"}, JOB, "local"),
        ({"on": "slurm"}, {}, "slurm"),
        ({}, {"SLURM_JOB_ID": "7"}, "local"),
        ({}, {**JOB, "SLURM_JOB_NODELIST": "gpu1", "SLURMD_NODENAME": "gpu1"}, "local"),
        ({}, {**JOB, "SLURM_JOB_NODELIST": "gpu1"}, "slurm"),  # salloc, on a login node
        ({}, {**JOB, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}, "slurm"),  # srun --pty
    ],
)
def test_a_job_has_the_scheduler_that_it_names_or_that_fits(
    fields: dict[str, Any], environ: dict[str, str], name: str
) -> None:
    assert name_of(settings(**fields), environ) == name


@pytest.mark.parametrize(
    ("fields", "environ", "said", "hint"),
    [
        ({"on": "slrum"}, {}, "--on 'slrum' is unknown", "did you mean 'slurm'?"),
        ({"on": "slurm", "hosts": "a"}, {}, "--on slurm does not use --hosts", "leave one"),
        (
            {"hosts": "gpu1,gpu7"},
            JOB,
            "--hosts names 'gpu7', which is not a node of this Slurm job, gpu[1-2]",
            "--on ssh reaches other machines",
        ),
        (
            {},
            {**JOB, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"},
            "srun started distrun in 8 tasks",
            "write `distrun launch …` without srun",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    fields: dict[str, Any], environ: dict[str, str], said: str, hint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        name_of(settings(**fields), environ)
    assert said in refused.value.message
    assert hint in refused.value.hint


def test_where_nodes_are_reached_from_here_every_scheduler_has_the_same_functions() -> None:
    for name in set(NAMES) - set(SUBMITTED):
        assert all(
            callable(getattr(scheduler(name), each)) for each in ("nodes", "command", "cure")
        )
    assert scheduler("local") is local


@pytest.mark.parametrize("name", SUBMITTED)
def test_where_no_node_is_reached_from_here_that_is_said(name: str) -> None:
    said = f"--on {name}: no node can be reached"
    with pytest.raises(UsageError, match=said), opened(settings(on=name)):
        pass


@pytest.mark.parametrize("where", [ssh, slurm])
def test_hostile_words_reach_the_program_whole_through_every_shell(
    where: Any, tmp_path: Path
) -> None:
    """The command's last word is what the shell there is given; srun runs it without one."""
    (tmp_path / "distrun_told.py").write_text("import sys; print(sys.argv[1:])")
    place = Place("n1", "n1", job_id="7", python="")
    words = where.command(place, "distrun_told", [HOSTILE])
    assert words[0] in ("ssh", "srun")
    line = words[-1] if where is ssh else shlex.join(words[-3:])
    environ = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", line], env=environ, capture_output=True, text=True)
    assert done.stdout == f"{[HOSTILE]}\n", done.stderr


def test_a_host_that_looks_like_an_option_stays_a_host() -> None:
    words = ssh.command(Place("-oProxyCommand=x", "-oProxyCommand=x"), "m", ())
    assert words[words.index("--") + 1] == "-oProxyCommand=x"


def test_port_and_user_are_told_to_ssh_and_an_allocations_gpus_to_srun() -> None:
    words = ssh.command(Place("b", "ada@b", port=2222), "m", ())
    assert words[words.index("-p") + 1] == "2222"
    assert "--gpus-per-node=8" in slurm.command(Place("n1", "n1", job_id="7", gpus=8), "m", ())
    assert not any("gpus" in w for w in slurm.command(Place("n1", "n1", job_id="7"), "m", ()))
