"""Names and quantities that Kubernetes would refuse later are refused here, with their cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.spec import read
from distrun.spec.job import Job, Settings
from distrun.spec.kubernetes_values import MAX_JOB_NAME, Toleration, Volume, quantity


def settings(**fields: Any) -> Settings:
    return read.validated(Settings, {"kubernetes": fields}, "flag")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "distrun",
            "distrun:1",
            "ada/distrun",
            "images.example.com/ada/distrun:1.0-cpu",
            "localhost:5000/a",
        ),
        *("a.b/c__d:x", "host:80/a/b/c@sha256:" + "0" * 64, "[::1]:5000/a", "A.example/a"),
    ],
)
def test_the_name_of_an_image_is_taken(name: str) -> None:
    assert read.validated(Job, {"script": "a.py", "image": name}, "flag").image == name


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "Distrun", "a b", "a:", ":a", "a::b", "/a", "a/", "http://a/b", "a@sha256:0"),
        *("a\n", "a:" + "x" * 129, "é", "-a", "a" * 600, "a:tag:tag", "$(x)"),
    ],
)
def test_what_is_no_name_of_an_image_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of an image") as caught:
        read.validated(Job, {"script": "a.py", "image": name}, "flag")
    assert caught.value.message.startswith("--image:") and caught.value.hint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "pod"}, "--kind 'pod' is refused"),
        ({"job_name": "Train"}, "--job-name: 'Train' is not the name of a job"),
        ({"job_name": "1a"}, "is not the name of a job"),
        ({"job_name": "a-"}, "is not the name of a job"),
        ({"job_name": "a.b"}, "is not the name of a job"),
        ({"job_name": "a" * (MAX_JOB_NAME + 1)}, f"the limit is {MAX_JOB_NAME}"),
        ({"namespace": "a_b"}, "--namespace: 'a_b' is not a name of Kubernetes"),
        ({"namespace": "a" * 64}, "is not a name of Kubernetes"),
        ({"queue": "Q"}, "--queue: 'Q'"),
        ({"context": "a\nb"}, "is not the name of a context"),
        ({"volume": ["data"]}, "--volume: 'data' is not CLAIM:/PATH"),
        ({"volume": ["data:x"]}, "'x' is not an absolute path"),
        ({"volume": ["data:/"]}, "'/' is not an absolute path"),
        ({"volume": ["data:/a/../b"]}, "is not an absolute path"),
        ({"volume": ["data:/a:rw"]}, "is not CLAIM:/PATH"),
        ({"volume": ["Data:/a"]}, "is not CLAIM:/PATH"),
        ({"volume": ["data:/tmp"]}, "'/tmp' is taken"),
        ({"volume": ["a:/x", "b:/x"]}, "is the path of two volumes"),
        ({"resource": {"cpu": "many"}}, "cpu='many' is not a quantity above 0"),
        ({"resource": {"memory": "0"}}, "memory='0' is not a quantity above 0"),
        ({"resource": {"a b": "1"}}, "'a b' is not the name of a resource"),
        ({"resource": ["cpu=8"]}, "is not NAME=QUANTITY"),
        ({"node_selector": {"a b": "c"}}, "is not a label"),
        ({"node_selector": {"a": "c d"}}, "is not a label"),
        ({"toleration": ["a:Never"]}, "is not KEY[=VALUE][:EFFECT]"),
        ({"toleration": [""]}, "is not KEY[=VALUE][:EFFECT]"),
        ({"retries": "-1"}, "--retries '-1' is refused"),
        ({"retries": "9999999999"}, "--retries '9999999999' is refused"),
        ({"ttl": "soon"}, "--ttl 'soon' is not a duration"),
        ({"knd": "job"}, "unknown key 'kubernetes.knd'"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(**fields)
    assert said in caught.value.message and caught.value.hint


def test_values_are_read_as_they_are_written_on_a_command_line_and_in_a_file() -> None:
    table = settings(
        volume=["data:/data:ro", "runs:/runs2"],
        toleration=["a=b:NoExecute", "c", "d="],
        resource={"cpu": 8, "example.com/nic": "1"},
        ttl="1h",
    ).kubernetes
    assert table.volume == (Volume("data", "/data", True), Volume("runs", "/runs2"))
    assert [str(each) for each in table.volume] == ["data:/data:ro", "runs:/runs2"]
    assert table.toleration == (
        Toleration("a", "b", "NoExecute"),
        Toleration("c", None, ""),
        Toleration("d", "", ""),
    )
    assert [str(each) for each in table.toleration] == ["a=b:NoExecute", "c", "d="]
    assert table.resource == {"cpu": "8", "example.com/nic": "1"} and table.ttl == 3600
    again = Settings.model_validate_json(Settings(kubernetes=table).model_dump_json())
    assert again.kubernetes == table


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("500m", 0.5), ("1k", 1000), ("4Gi", 4 << 30), ("1.5M", 1.5e6), ("2Ki", 2048)],
)
def test_a_quantity_is_a_number(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "G", "1ki", "1mi", "1e3", "-1", "1 Gi", "1.", "٣"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        quantity(text)


@pytest.mark.parametrize("key", ["node-selector", "node_selector"])
def test_keys_of_a_table_are_merged_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    text = f"[tool.distrun.kubernetes]\n{key} = {{a = 'b'}}\n"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(text)
    flags = {"script": "train.py", "kubernetes": {"node_selector": {"c": "d"}}}
    assert dict(read.job(flags)[0].kubernetes.node_selector) == {"c": "d"}
