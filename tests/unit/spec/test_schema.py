"""The surface is data: settings, flags and the JSON Schema name the same things."""

from __future__ import annotations

import json
from collections.abc import Callable
from subprocess import CompletedProcess

import typer.main

from distrun.cli.app import app
from distrun.spec.job import Job, Settings
from distrun.spec.kubernetes import Kubernetes
from distrun.spec.slurm import Slurm

ONLY_ON_THE_COMMAND_LINE = {
    *("script", "args", "module", "no_python"),  # the program, not its settings
    *(
        "config",
        "dry_run",
        "explain",
        "detach",
        "resume",
        "estimate",
        "force",
    ),  # what the command itself does
    *("quiet", "only_rank", "prefix", "fold", "json"),  # what is shown of it
    "debug_rank",  # where a person sits
}
"""A new flag belongs here or into `Settings`, never into neither."""


def flags_of_launch() -> set[str]:
    group = typer.main.get_command(app)
    return {p.name for p in group.commands["launch"].params if p.name != "help"}  # type: ignore[attr-defined]


def test_every_setting_is_a_flag_and_every_flag_a_setting() -> None:
    settings = set(Settings.model_fields) - {"slurm", "kubernetes"}  # tables, whose keys are flags
    settings -= {"on_failure"}  # --on, too
    settings |= set(Slurm.model_fields) | set(Kubernetes.model_fields)
    assert flags_of_launch() == settings | ONLY_ON_THE_COMMAND_LINE


def test_the_fields_of_a_job_are_settings_and_the_program() -> None:
    program = {"script", "args", "module", "no_python"}
    assert set(Job.model_fields) == set(Settings.model_fields) | program


def test_the_schema_lists_exactly_the_settings_as_they_are_written_in_a_file(
    distrun: Callable[..., CompletedProcess[str]],
) -> None:
    schema = json.loads(distrun("config", "schema").stdout)
    assert set(schema["properties"]) == {n.replace("_", "-") for n in Settings.model_fields}
    assert all(rule["description"] for rule in schema["properties"].values())
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    assert schema["properties"]["strategy"]["anyOf"][0]["enum"] == [
        *("dp", "ddp", "fsdp", "hsdp", "tp", "pp", "ep", "cp")
    ]
