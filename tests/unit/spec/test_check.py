"""The table `[tool.distrun.check]`, and snapshots that come back from files and pipes."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.probe.snapshot import Gpu, Host, Node, Nvml, Software
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


# --- what no machine can have --------------------------------------------------------------


def with_value(path: str, value: object) -> str:
    gpu = dataclasses.asdict(Gpu(0, memory_total_nbytes=80 << 30))
    data = dataclasses.asdict(NODE) | {"nvml": dataclasses.asdict(Nvml()) | {"gpus": [gpu]}}
    place: Any = data
    *steps, last = path.split(".")
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("host.memory_total_nbytes", -1, "host.memory_total_nbytes is -1, below 0"),
        ("host.memlock_nbytes", -2, "host.memlock_nbytes is -2, below -1"),
        ("host.usable_cores", float("nan"), "host.usable_cores is nan, which is not a number"),
        (
            "host.clock_offset_s",
            float("-inf"),
            "host.clock_offset_s is -inf, which is not a number",
        ),
        ("host.cpu_count", -4, "host.cpu_count is -4, below 0"),
        ("nvml.gpus.0.utilization_percent", 101, "utilization_percent is 101, above 100"),
        ("nvml.gpus.0.temperature_c", -300, "temperature_c is -300, below -273"),
        ("nvml.gpus.0.index", -1, "nvml.gpus.0.index is -1, below 0"),
        ("nvml.gpus.0.memory_used_nbytes", 81 << 30, "above memory_total_nbytes, which is"),
        ("nvml.gpus.0.power_w", -0.5, "power_w is -0.5, below 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_name(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    (tmp_path / "n.json").write_text(with_value(path, value))
    with pytest.raises(UsageError) as refused:
        read_snapshots(tmp_path / "n.json", Node)
    assert message in refused.value.message


def test_two_gpus_of_one_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text(with_value("nvml.gpus", [{"index": 3}, {"index": 3}]))
    with pytest.raises(UsageError, match=r"nvml\.gpus has two GPUs with index 3"):
        read_snapshots(tmp_path / "n.json", Node)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("host.memlock_nbytes", -1),
        ("host.nofile", -1),
        ("host.clock_offset_s", -12.5),
        ("nvml.gpus.0.temperature_margin_c", -4),
        ("nvml.gpus.0.memory_used_nbytes", 80 << 30),
    ],
)
def test_a_number_that_may_be_is_read(tmp_path: Path, path: str, value: object) -> None:
    (tmp_path / "n.json").write_text(with_value(path, value))
    assert read_snapshots(tmp_path / "n.json", Node)


def test_a_thousand_nodes_are_read_in_seconds(tmp_path: Path) -> None:
    one = json.loads(with_value("host.nofile", 1024))
    one["nvml"]["gpus"] = [one["nvml"]["gpus"][0] | {"index": i} for i in range(8)]
    (tmp_path / "n.json").write_text(json.dumps([one | {"name": f"n{i}"} for i in range(1000)]))
    begun = time.process_time()
    assert len(read_snapshots(tmp_path / "n.json", Node)) == 1000
    assert time.process_time() - begun < 5
