"""What people type for nodes, ranks, times, GPUs and hosts, and how it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distrun.errors import UsageError
from distrun.spec.fields import NodeRange
from distrun.spec.hosts import HostSpec
from distrun.spec.job import Job, Range, Settings
from distrun.spec.read import validated


def settings(**values: Any) -> Settings:
    return validated(Settings, values, "flag")


@pytest.mark.parametrize(
    ("field", "typed", "read"),
    [
        ("nodes", 3, NodeRange(3, 3)),
        ("nodes", "3", NodeRange(3, 3)),
        ("nodes", " 2 ", NodeRange(2, 2)),
        ("nodes", "2:4", NodeRange(2, 4)),
        ("nodes", NodeRange(1, 2), NodeRange(1, 2)),
        ("nproc_per_node", "auto", "auto"),
        ("nproc_per_node", "gpu", "gpu"),
        ("nproc_per_node", "cpu", "cpu"),
        ("nproc_per_node", "8", 8),
        ("nproc_per_node", 1, 1),
        ("gpus", "0,2", "0,2"),
        ("gpus", [0, 2], "0,2"),
        ("gpus", 3, "3"),
        ("gpus", "free:4", "free:4"),
        ("hosts", "a, b", (HostSpec(name="a"), HostSpec(name="b"))),
        (
            "hosts",
            [{"name": "a", "slots": 4}, "::1"],
            (HostSpec(name="a", slots=4), HostSpec(name="::1")),
        ),
        ("hostfile", "my hosts", Path("my hosts")),
        ("grace", "0", 0.0),
        ("grace", 1.5, 1.5),
        ("time_limit", "90", 90.0),
        ("time_limit", "90s", 90.0),
        ("time_limit", "1.5 m", 90.0),
        ("time_limit", "2h", 7200.0),
        ("time_limit", "1d", 86400.0),
        ("join_timeout", 5, 5.0),
        ("max_restarts", "2", 2),
        ("master_port", "29500", 29500),
        ("runs_dir", "my runs", Path("my runs")),
        ("runs_dir", "~/runs", Path.home() / "runs"),
        ("env_file", "~/.env", Path.home() / ".env"),
        ("env", {"A": "b=c", "EMPTY": ""}, {"A": "b=c", "EMPTY": ""}),
    ],
)
def test_what_is_typed_is_read(field: str, typed: object, read: object) -> None:
    assert getattr(settings(**{field: typed}), field) == read


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("nodes", "0", "--nodes '0' is below 1"),
        ("nodes", "0:2", "--nodes '0:2' is below 1"),
        ("nodes", "4:2", "--nodes '4:2' has its minimum 4 above its maximum 2"),
        ("nodes", "two", "--nodes 'two' is neither a number nor MIN:MAX"),
        ("nodes", "2:", "--nodes '2:' is neither a number nor MIN:MAX"),
        ("nodes", "-1", "--nodes '-1' is neither a number nor MIN:MAX"),
        ("nodes", "1:2:3", "--nodes '1:2:3' is neither a number nor MIN:MAX"),
        ("nodes", True, "--nodes True is neither a number nor MIN:MAX"),
        ("nodes", 2.0, "--nodes 2.0 is neither a number nor MIN:MAX"),
        ("nproc_per_node", "0", "--nproc-per-node '0' is below 1"),
        ("nproc_per_node", "-2", "--nproc-per-node '-2' is below 1"),
        ("nproc_per_node", "x", "--nproc-per-node 'x' is neither auto, gpu, cpu nor a number"),
        ("nproc_per_node", "", "--nproc-per-node '' is neither auto, gpu, cpu nor a number"),
        ("nproc_per_node", True, "--nproc-per-node True is neither auto, gpu, cpu nor a number"),
        ("gpus", "a", "--gpus 'a' is neither a list of GPU numbers such as 0,2 nor free:COUNT"),
        ("gpus", "0,,2", "--gpus '0,,2' is neither a list of GPU numbers"),
        ("gpus", "free:0", "--gpus 'free:0' is neither a list of GPU numbers"),
        ("gpus", "0,2,0", "--gpus '0,2,0' names a GPU twice"),
        ("gpus", [], "--gpus [] is neither a list of GPU numbers"),
        ("hosts", "a,,b", "--hosts: '' is not a host name: it is empty"),
        ("hosts", "a b", "--hosts: 'a b' is not a host name: it holds ' '"),
        ("hosts", "-oProxyCommand=x", "--hosts: '-oProxyCommand=x' is not a host name"),
        ("hosts", "a,a", "--hosts: 'a' is named twice"),
        ("hosts", 5, "--hosts: 5 is not a list of hosts"),
        ("hosts", True, "--hosts: True is not a list of hosts"),
        ("workdir", "~/w", "--workdir: '~/w': whose home is not known"),
        ("time_limit", "soon", "--time-limit 'soon' is not a duration such as 90, 90s, 5m"),
        ("time_limit", "0", "--time-limit '0' is not above 0"),
        ("time_limit", "-1", "--time-limit '-1' is not a duration"),
        ("time_limit", "1w", "--time-limit '1w' is not a duration"),
        ("time_limit", "nan", "--time-limit 'nan' is not a duration"),
        ("time_limit", True, "--time-limit True is not a duration"),
        ("time_limit", "9" * 400, "is longer than"),
        ("join_timeout", "0s", "--join-timeout '0s' is not above 0"),
        ("grace", "8d", "--grace '8d' is longer than 7d"),
        ("grace", "-3s", "--grace '-3s' is not a duration"),
        ("max_restarts", "-1", "--max-restarts '-1' is refused"),
        ("max_restarts", "many", "--max-restarts 'many' is refused"),
        ("master_port", "0", "--master-port '0' is refused"),
        ("master_port", "65536", "--master-port '65536' is refused"),
        ("start_method", "fork", "--start-method 'fork' is refused"),
        ("log_max_mib", "1.5", "--log-max-mib '1.5' is refused"),
        ("strategy", "dddp", "unknown strategy 'dddp'"),
        ("env", {"A=B": "1"}, "--env holds 'A=B', which cannot be a variable"),
        ("env", {"": "1"}, "--env holds '', which cannot be a variable"),
        ("env", {"A": "1\0"}, "--env holds 'A', which cannot be a variable"),
        ("env", {"-i": "1"}, "--env holds '-i', which cannot be a variable"),
        ("env", {"A B": "1"}, "--env holds 'A B', which cannot be a variable"),
        ("env", {"A\nB": "1"}, r"--env holds 'A\nB', which cannot be a variable"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name_value_and_limit(
    field: str, typed: object, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        settings(**{field: typed})
    assert said in refused.value.message
    assert "\n" not in refused.value.message


def test_hosts_and_a_hostfile_exclude_each_other() -> None:
    with pytest.raises(UsageError) as refused:
        settings(hosts="a", hostfile="h")
    assert refused.value.message == "--hostfile: 'h' and hosts exclude each other"
    assert refused.value.hint == "leave one of them out"
    assert settings(hosts=[], hostfile="h").hostfile == Path("h")


def test_a_secret_value_is_not_told_when_its_name_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        settings(env={"MY TOKEN": "hunter2"})
    assert "hunter2" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("dddp", "did you mean 'ddp'?"), ("fdsp", "did you mean 'fsdp'?"), ("zzz", "one of: cp, ")],
)
def test_an_unknown_strategy_gets_the_nearest_name(typed: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        settings(strategy=typed)
    assert refused.value.hint.startswith(hint)


def test_a_node_range_is_written_as_it_was_typed() -> None:
    assert [str(NodeRange(2, 2)), str(NodeRange(1, 4))] == ["2", "1:4"]


@pytest.mark.parametrize(
    ("rule", "value", "broken"),
    [
        (Range(min=4), 3, "at least 4"),
        (Range(min=4), 4, ""),
        (Range(max=4), 5, "at most 4"),
        (Range(max=4), 4, ""),
        (Range(multiple_of=4), 6, "a multiple of 4"),
        (Range(multiple_of=4), 8, ""),
        (Range(min=2, max=8, multiple_of=2), 4, ""),
        (Range(), 1, ""),
    ],
)
def test_a_range_says_which_bound_is_broken(rule: Range, value: int, broken: str) -> None:
    assert rule.broken_by(value) == broken


def test_a_job_cannot_be_changed_and_knows_no_other_fields() -> None:
    job = Job(script="train.py", nodes=2)  # type: ignore[arg-type]  # as the README writes it
    with pytest.raises(ValueError, match="frozen"):
        job.script = "other.py"
    with pytest.raises(ValueError, match="nnodes"):
        Job(script="train.py", nnodes=2)  # type: ignore[call-arg]
