"""The plan is plain data: it travels as JSON, and yields one command line a node."""

from __future__ import annotations

import json
from string import Template

import pytest

from distrun.plan.model import SIGNALS_TO_HANDLE, LaunchPlan, Program
from tests.unit.machines import RUN_ID, machine, plan_of, planned


@pytest.mark.parametrize(
    "plan",
    [
        planned(),
        planned(nodes="1:3", env={"A": "\u00e9\n'"}, args=("--lr", "", "\udcff")),
        planned(machine(4), gpus="free:2", time_limit="5m", master_port=1234),
        planned(hosts="a,b", module=True, script="pkg.train", secret_env={"K": "v"}),
    ],
    ids=["plain", "elastic", "gpus", "hosts"],
)
def test_a_plan_comes_back_from_json_as_it_was(plan: LaunchPlan) -> None:
    assert LaunchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_node_gets_its_rank_its_address_and_everything_else_alike() -> None:
    plan = planned(machine(addresses={"a": "10.0.0.1", "b": "10.0.0.2"}), hosts="a,b")
    first, second = plan.torchrun_arguments(0), plan.torchrun_arguments(1)
    assert [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]] == [
        ("--node-rank=0", "--node-rank=1"),
        ("--local-addr=10.0.0.1", "--local-addr=10.0.0.2"),
    ]


def test_the_whole_command_line_of_a_node() -> None:
    plan = planned(nodes=2, nproc_per_node=2, join_timeout="90", args=("--nodes", "9"))
    assert plan.torchrun_arguments(1) == [
        "--nnodes=2",
        "--nproc-per-node=2",
        "--node-rank=1",
        "--master-addr=127.0.0.1",
        "--master-port=40000",
        "--local-addr=127.0.0.1",
        f"--rdzv-id={RUN_ID}",
        "--rdzv-conf=timeout=90",
        "--max-restarts=0",
        f"--signals-to-handle={SIGNALS_TO_HANDLE}",
        *("--", "train.py"),
        *("--nodes", "9"),
    ]


def test_a_join_timeout_below_a_second_is_not_rounded_to_none() -> None:
    assert "--rdzv-conf=timeout=1" in planned(join_timeout="0.2").torchrun_arguments(0)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (Program("train.py"), ["--", "train.py"]),
        (Program("train.py", ("--run", "exp7")), ["--", "train.py", "--run", "exp7"]),
        (Program("train.py", ("--", "a", "--")), ["--", "train.py", "--", "a", "--"]),
        (Program("-train.py"), ["--", "./-train.py"]),
        (Program("pkg.train", ("a",), module=True), ["--module", "--", "pkg.train", "a"]),
        (Program("/bin/sh", ("-c",), no_python=True), ["--no-python", "--", "/bin/sh", "-c"]),
        (Program("-x", no_python=True), ["--no-python", "--", "-x"]),
        (Program("a$$", ("$$",), no_python=True), ["--no-python", "--", "a$$", "$$$$"]),
    ],
)
def test_the_program_stands_last_behind_two_hyphens(program: Program, words: list[str]) -> None:
    assert plan_of(program, {}).torchrun_arguments(0)[10:] == words


DOLLARS = ["$$", "$HOME", "$$$", "a$$b$", "${HOME}", "$$$$", "${local_rank}", "$$local_rank"]


@pytest.mark.parametrize("text", DOLLARS)
def test_dollars_come_out_of_torchruns_macros_as_they_went_in(text: str) -> None:
    program = Program(f"{text}.py", (text,))
    for word in plan_of(program, {}).torchrun_arguments(0)[-2:]:
        # torch.distributed.elastic.utils.api.macros.substitute does this to every word
        assert Template(word).safe_substitute(local_rank="0").removesuffix(".py") == text


def test_the_next_attempt_is_another_world_of_the_same_run() -> None:
    plan = planned(nodes=3)
    second = plan.next_attempt(1, plan.nodes[:2])
    third = second.next_attempt(2, second.nodes)
    assert (second.run_id, third.run_id) == (f"{RUN_ID}.1", f"{RUN_ID}.2")
    assert (third.nnodes, third.program) == (2, plan.program)
    assert "--nnodes=2" in third.torchrun_arguments(0)


@pytest.mark.parametrize(
    ("script", "module", "name"),
    [
        ("train.py", False, "train"),
        ("recipes/ddp.py", False, "ddp"),
        ("/bin/sh", False, "sh"),
        ("pkg.sub.train", True, "train"),
        ("train", True, "train"),
    ],
)
def test_a_program_has_a_short_name(script: str, module: bool, name: str) -> None:
    assert Program(script, module=module).name == name


@pytest.mark.parametrize(
    ("fields", "linger_s"), [({}, 30.0), ({"grace": "5s"}, 5.0), ({"linger": "0"}, 0.0)]
)
def test_what_is_left_behind_has_the_grace_unless_the_linger_says_otherwise(
    fields: dict[str, str], linger_s: float
) -> None:
    assert planned(**fields).linger_s == linger_s
