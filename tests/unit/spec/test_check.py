"""The table `[tool.distrun.check]`, and snapshots that come back from files and pipes."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from distrun.errors import UsageError
from distrun.probe.snapshot import Host, Node, Nvml, Software
from distrun.spec import read
from distrun.spec.check import CheckTable, limits_of
from distrun.spec.job import Settings
from distrun.spec.snapshot import node_of, read_snapshots

NODE = Node("n0", "2026-02-03T04:05:06+00:00", Nvml(), Host(), Software())


@dataclass(frozen=True)
class Limits:
    """As a room may have them that `spec` does not know."""

    size_nbytes: int = 5
    share: float = 0.5
    codes: tuple[int, ...] = (1, 2)


def table(**fields: object) -> bool | CheckTable:
    return read.validated(Settings, {"check": fields}, "config file x.toml").check


@pytest.mark.parametrize("check", [True, False, CheckTable()])
def test_without_limits_the_defaults_hold(check: bool | CheckTable) -> None:
    assert limits_of(check, Limits) == Limits()


def test_limits_are_named_as_in_python_or_as_in_toml() -> None:
    assert limits_of(table(**{"size-nbytes": 7}), Limits) == Limits(size_nbytes=7)
    assert limits_of(table(share=1, codes=[3], ignore=["a"]), Limits) == Limits(5, 1.0, (3,))


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"size_nbyte": 7}, "unknown key 'size_nbyte'", "did you mean 'size_nbytes'?"),
        ({"ignored": []}, "unknown key 'ignored'", "did you mean 'ignore'?"),
        ({"size_nbytes": 7.5}, "size_nbytes 7.5 in [tool.distrun.check] is refused", "a number"),
        ({"size_nbytes": True}, "size_nbytes True in", "a number"),
        ({"share": "much"}, "share 'much' in", "a number"),
        ({"codes": ["x"]}, "codes 'x' in", "a number"),
    ],
)
def test_a_wrong_limit_is_named(given: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        limits_of(table(**given), Limits)
    assert message in refused.value.message
    assert refused.value.hint.startswith(hint)


def test_tables_of_two_files_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.distrun.check]\nshare = 1\nsize-nbytes = 1\n")
    (tmp_path / "own.toml").write_text("[tool.distrun.check]\nsize-nbytes = 2\n")
    monkeypatch.chdir(tmp_path)
    merged = read.settings({}, Path("own.toml"))
    assert limits_of(merged.check, Limits) == Limits(2, 1.0)
    assert read.settings({"check": False}, Path("own.toml")).check is False


# --- snapshots ---------------------------------------------------------------------------


def written(node: Node, **changes: object) -> str:
    return json.dumps({**dataclasses.asdict(node), **changes})


def test_one_node_or_a_list_of_them_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a b.json"
    file.write_text(written(NODE))
    assert read_snapshots(file, Node) == [NODE]
    file.write_text(f"[{written(NODE)}, {written(NODE)}]\n")
    assert read_snapshots(file, Node) == [NODE, NODE]


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = written(NODE)
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(text))
    writer.start()
    assert read_snapshots(tmp_path / "pipe", Node) == [NODE]
    writer.join()


def test_half_a_character_costs_no_node() -> None:
    (node,) = [node_of(json.loads(written(NODE, name="a\ud800b")), Node, "x")]
    assert node.name == "a?b"


@pytest.mark.parametrize("schema", [0, 2, "1", True, None, 1.5])
def test_another_schema_is_refused(schema: object) -> None:
    with pytest.raises(UsageError, match=r"x has schema .*, not 1"):
        node_of(json.loads(written(NODE, schema=schema)), Node, "x")


def test_a_key_that_nobody_knows_is_refused_wherever_it_is() -> None:
    data = json.loads(written(NODE))
    data["host"]["nics"] = [{"name": "eth0", "up": True}, {"name": "eth1", "up": True, "new": 1}]
    with pytest.raises(UsageError, match=r"unknown key 'host\.nics\.1\.new'"):
        node_of(data, Node, "x")
    data["host"]["nics"] = []
    data["host"]["environ"] = {"NCCL_DEBUG": "WARN"}
    data["host"]["missing"] = {"xids": "NoPermission"}
    assert node_of(data, Node, "x").host.environ == {"NCCL_DEBUG": "WARN"}
