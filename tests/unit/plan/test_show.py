"""Whatever stands in a plan, the printed line means exactly that to a shell."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrun.plan.model import LaunchPlan, Program
from distrun.plan.show import dry_run, explain, torchrun_line
from distrun.spec.job import Settings
from tests.unit.machines import machine, plan_of, planned

HOSTILE = [
    *("", " ", "a b", "it's", '"', "$HOME", "$(id)", "`id`", ";", "&& x", "|", ">f", "a\nb", "*"),
    *("~", "!!", "\\", "\\n", "#x", "a\tb", "\r", "\u00e9", "\u65e5\u672c", "{a,b}", "-x", "--"),
    *("\x1b[31m", "%s", "a=b", "\u2028", "'\"'\"'"),
]
NAMES = ["A", "lower_1", "WITH.DOT", "$(id)", "A;B", "A'B", "BASH_FUNC_x%%", "\u00dc"]

texts = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)
names = st.sampled_from(NAMES)


def words_for(plan: LaunchPlan) -> list[str]:
    """Return the words that the line has to mean."""
    assignments = [f"{k}={v}" for k, v in plan.nodes[0].environ.items() if k not in plan.secrets]
    head = ["env", *assignments] if plan.nodes[0].environ else []
    return [*head, "torchrun", *plan.torchrun_arguments(0)]


@settings(deadline=None)
@given(
    script=texts.filter(bool),
    args=st.lists(texts, max_size=4),
    environ=st.dictionaries(names, texts),
)
def test_a_line_splits_into_exactly_the_plans_words(
    script: str, args: list[str], environ: dict[str, str]
) -> None:
    plan = plan_of(Program(script, tuple(args)), environ)
    assert shlex.split(torchrun_line(plan, 0)) == words_for(plan)


def test_a_real_shell_reads_the_line_as_it_is_meant(tmp_path: Path) -> None:
    """`sh` runs the line with a `torchrun` on PATH that writes down what it was given."""
    record = tmp_path / "record"
    fake = tmp_path / "torchrun"
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([sys.argv[1:], dict(os.environ)], open({str(record)!r}, 'w'))\n"
    )
    fake.chmod(0o755)
    environ = {name: HOSTILE[i] for i, name in enumerate(NAMES)}
    environ |= {f"H{i}": text for i, text in enumerate(HOSTILE)}
    plan = plan_of(Program("my 'tr$ain\n.py", tuple(HOSTILE)), environ)
    line = torchrun_line(plan, 0)
    path = f"{tmp_path}:/usr/bin:/bin"
    subprocess.run(["sh", "-c", line], env={"PATH": path}, check=True, cwd=tmp_path, timeout=30)
    arguments, seen = json.loads(record.read_text())
    assert arguments == plan.torchrun_arguments(0)
    assert environ.items() <= seen.items()


@settings(deadline=None)
@given(note=texts, secret=st.booleans(), value=texts, name=names)
def test_everything_but_the_lines_is_a_comment(
    note: str, secret: bool, value: str, name: str
) -> None:
    job = planned(env={name: value}, cold_reason=f"it sets {note}", script=f"x{note}.py")
    plan = plan_of(Program("t.py"), {name: value}, secrets=(name,) if secret else ())
    plan = LaunchPlan(**{**vars(plan), "notes": job.notes})
    shown = [*dry_run(plan), *explain(job.settings)]
    pasteable = torchrun_line(plan, 0)
    assert shown.count(pasteable) == 1
    for line in shown:
        assert line == pasteable or (line.startswith("# ") and line.isprintable())


def test_secrets_are_named_and_never_shown() -> None:
    plan = planned(env={"HF_TOKEN": "hunter2", "A": "1"}, secret_env={"B": "hunter3"}, nodes=2)
    shown = list(dry_run(plan)) + list(explain(plan.settings))
    assert "hunter" not in "\n".join(shown)
    assert "# export first, here left out as secret: B HF_TOKEN" in shown
    lines = [line for line in shown if not line.startswith("#")]
    assert len(lines) == 2
    assert all("HF_TOKEN" not in line and " A=1 " in line for line in lines)


def test_a_plan_without_variables_needs_no_env() -> None:
    assert torchrun_line(plan_of(Program("t.py"), {}), 0).startswith("torchrun --nnodes=1 ")


def test_every_flag_and_variable_is_explained() -> None:
    plan = planned(machine(4), gpus="0,1", strategy="ddp", env={"A": "1"})
    explained = {line.removeprefix("# ").partition("=")[0] for line in explain(plan.settings)}
    own = plan.torchrun_arguments(0)[:-2]  # without `-- train.py`
    flags = {word.partition("=")[0] for word in own}
    assert flags | set(plan.nodes[0].environ) <= explained


BEFORE_THE_PLAN = {"check", "strict", "on", "hostfile", "slurm", "image", "kubernetes"}
"""Settings of what happens before there is a plan, and those that follow from the hosts."""


@pytest.mark.parametrize("field", sorted(set(Settings.model_fields) - BEFORE_THE_PLAN))
def test_the_source_of_every_setting_is_told(field: str) -> None:
    """A value that came from a flag is explained as one."""
    examples: dict[str, Any] = {
        "nodes": "2",
        "nproc_per_node": "2",
        "strategy": "ddp",
        "gpus": "0",
        "max_restarts": 1,
        "env": {"A": "1"},
        "runs_dir": "r",
        "hosts": "a,b",
        "master_port": 1234,
        "time_limit": "5",
        "grace": "5",
        "linger": "4",
        "straggler_notice": "7",
        "hang_timeout": "9",
        "on_hang": "observe",
        "spare": 1,
        "regrow": True,
        "on_failure": {"crash": "stop"},
        "join_timeout": "5",
        "start_method": "spawn",
        "log_max_mib": 3,
        "metrics_every": "2",
        "report": False,
        "track": "wandb",
        "python": "/opt/python",
        "workdir": "/srv",
        "sync": True,
        "bootstrap": True,
        "interface": "eth1",
    }
    elsewhere = ("python", "workdir", "sync", "bootstrap", "interface")
    there = {"hosts": "a,b"} if field in elsewhere else {}
    if field == "env_file":
        plan = planned(secret_env={"A": "1"})
        assert [s.source for s in plan.settings if s.name == "A"] == ["env file"]
        return
    before = {line for line in explain(planned(machine(4), **there).settings) if "flag" in line}
    after = explain(planned(machine(4), **there, **{field: examples[field]}).settings)
    assert [line for line in after if "flag" in line and line not in before]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.0.0.1", "an address, so that no name is resolved"),
        ("fe80::1%eth0", "an address, so that no name is resolved"),
        (None, "a name that is unknown here; each node resolves it"),
    ],
)
def test_a_name_is_not_called_an_address(address: str | None, said: str) -> None:
    plan = planned(machine(2, addresses={"a": address, "b": None}), hosts="a,b")
    (line,) = [line for line in explain(plan.settings) if "--master-addr" in line]
    assert line.endswith(said)
