"""The Compose file of a run: what every container is told, whatever the words are."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from distrun.errors import UsageError
from distrun.schedulers.compose import Composed, render

JOB = Composed(
    name="train-1a2b",
    image="distrun",
    command=("distrun", "launch", "--nodes=3", "train.py"),
    nodes="3",
    count=3,
    project_dir="/home/ada/project",
    workdir="/workspace/src",
    user="1000:0",
    grace_s=30.0,
)
HOSTILE = (
    *("$HOME", "${PATH}", "$$", "a b", "it's", '"', "\\", "#", "- x", "on", "1e3", "~", ": "),
    *("line\nbreak", "tab\t", "é", "\u2028", "\x1b[31m", "{}", "*a", "&a", "!x", "", "%", "@"),
)


def parsed(job: Composed) -> dict[str, Any]:
    return dict(yaml.safe_load(render(job)))


def interpolated(value: str, environ: dict[str, str]) -> str:
    """Compose's own step after the YAML: `$$` is `$`, and `${NAME}` a variable."""
    return re.sub(
        r"\$(\$|\{(\w+)(?::\?[^}]*)?\})",
        lambda match: "$" if match[1] == "$" else environ[match[2]],
        value,
    )


def test_all_nodes_run_the_same_and_know_which_they_are() -> None:
    services = parsed(JOB)["services"]
    assert list(services) == ["node0", "node1", "node2"]
    assert {tuple(each["command"]) for each in services.values()} == {JOB.command}
    for rank, each in enumerate(services.values()):
        environ = each["environment"]
        assert environ["DISTRUN_NODE_RANK"] == str(rank)
        assert (environ["DISTRUN_NNODES"], environ["DISTRUN_HEAD"]) == ("3", "node0")
        assert each["hostname"] == f"node{rank}"
        assert each["container_name"] == JOB.containers[rank]


def test_a_range_of_nodes_has_containers_for_the_most() -> None:
    services = parsed(replace(JOB, nodes="2:3"))["services"]
    assert len(services) == 3
    assert services["node2"]["environment"]["DISTRUN_NNODES"] == "2:3"


def test_one_node_needs_no_key() -> None:
    (service,) = parsed(replace(JOB, nodes="1", count=1))["services"].values()
    assert list(service["environment"]) == ["DISTRUN_RECORDED_ELSEWHERE"]
    assert "DIAL_KEY" not in render(replace(JOB, nodes="1", count=1))


@pytest.mark.parametrize("word", HOSTILE)
def test_a_word_reaches_the_container_as_it_is(word: str) -> None:
    job = replace(JOB, command=(*JOB.command, word), workdir=f"/workspace/{word}")
    service = parsed(job)["services"]["node1"]
    assert interpolated(service["command"][-1], {}) == word
    assert interpolated(service["working_dir"], {}) == f"/workspace/{word}"


def test_values_of_secrets_are_left_to_the_surroundings_and_their_names_stand_there() -> None:
    environ = parsed(replace(JOB, secrets=("API_KEY",)))["services"]["node0"]["environment"]
    assert interpolated(environ["API_KEY"], {"API_KEY": "pa$$word"}) == "pa$$word"
    assert interpolated(environ["DISTRUN_DIAL_KEY"], {"DISTRUN_DIAL_KEY": "k"}) == "k"


def test_a_container_may_write_to_memory_and_to_the_volume_of_all_nodes() -> None:
    service = parsed(JOB)["services"]["node0"]
    assert (service["read_only"], service["user"]) == (True, "1000:0")
    project, runs = service["volumes"]
    assert (project["source"], project["read_only"]) == ("/home/ada/project", True)
    assert (runs["type"], runs["target"]) == ("volume", "/runs")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges"]


def test_compose_kills_only_after_the_grace() -> None:
    assert parsed(replace(JOB, grace_s=12.5))["services"]["node0"]["stop_grace_period"] == "18s"


def test_line_breaks_in_the_command_line_stay_within_the_comment() -> None:
    job = replace(JOB, made_by=("distrun", "launch", "a\nservices: {}"))
    assert parsed(job) == parsed(JOB)


def test_a_word_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="not Unicode"):
        render(replace(JOB, command=("\udcff",)))
