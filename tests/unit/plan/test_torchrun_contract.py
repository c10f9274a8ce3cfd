"""Printed = done: torchrun reads the printed line as distrun's own agent does.

Both sides run in child processes, because importing torch is slow and stays.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distrun.plan.model import SIGNALS_TO_HANDLE, LaunchPlan
from distrun.plan.show import torchrun_line
from tests.conftest import only_run
from tests.unit.machines import planned

ROOT = Path(__file__).parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]

# --- the line ------------------------------------------------------------------------

PLANS = {
    "one rank": planned(nproc_per_node=1),
    "two nodes": planned(nodes=2, nproc_per_node=2, join_timeout="90s"),
    "elastic": planned(nodes="1:3", nproc_per_node=2),
    "hosts": planned(hosts="10.0.0.1,10.0.0.2", nproc_per_node=8, master_port=1234),
    "module": planned(script="json.tool", module=True, args=("--indent", "2"), nproc_per_node=1),
    "program": planned(script="/bin/echo", no_python=True, args=("-n", "a"), nproc_per_node=1),
    "own flags": planned(args=("--nodes", "3", "--nproc-per-node=9", "-m", "x"), nproc_per_node=1),
    "two hyphens": planned(args=("--", "--nodes", "--", ""), nproc_per_node=1),
    "dollars": planned(script="a$$b $HOME.py", args=("$$", "${HOME}", "`id`"), nproc_per_node=1),
    "leading hyphen": planned(script="-train.py", nproc_per_node=1),
    "hostile": planned(
        script="my 'tr\"ain;\n.py", args=("", " ", "\n", "\u00e9", "*", "#"), nproc_per_node=1
    ),
}
READ_BY_TORCHRUN = """
import json, sys
from torch.distributed import run
from torch.distributed.elastic.utils.api import macros
from distrun.agent import engine

def plain(config):
    fields = {k: v for k, v in vars(config).items() if k != "logs_specs"}
    made_afresh = ("_root_log_dir", "_run_log_dir")
    logs = {k: v for k, v in vars(config.logs_specs).items() if k not in made_afresh}
    return {k: repr(v) for k, v in sorted({**fields, **logs}.items())}

answers = []
for arguments in json.load(sys.stdin):
    config, command, command_args = run.config_from_args(run.parse_args(arguments))
    engine_config, engine_command = engine.parse(arguments)
    answers.append({
        "torchrun": plain(config),
        "engine": plain(engine_config),
        "command": macros.substitute([command, *command_args], "0"),
        "engine_command": engine_command,
        "torchrun_command": [command, *command_args],
        "timeout": config.rdzv_configs.get("timeout"),
    })
    for one in (config, engine_config):
        import pathlib
        pathlib.Path(one.logs_specs.root_log_dir).rmdir()  # the parser makes one each time
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, list[dict[str, Any]]]:
    """What both sides make of every node's line of every plan."""
    lines = [
        (name, shlex.split(torchrun_line(plan, node)))
        for name, plan in PLANS.items()
        for node in range(plan.nnodes)
    ]
    arguments = [words[words.index("torchrun") + 1 :] for _, words in lines]
    child = subprocess.run(
        [sys.executable, "-c", READ_BY_TORCHRUN],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": "/tmp"},
    )
    assert child.returncode == 0, child.stderr
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in PLANS}
    for (name, _), answer in zip(lines, json.loads(child.stdout), strict=True):
        found[name].append(answer)
    return found


@pytest.mark.parametrize("name", sorted(PLANS))
def test_torchrun_and_the_agent_read_the_line_alike_field_by_field(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    for answer in answers[name]:
        assert answer["torchrun"] == answer["engine"]
        assert answer["torchrun_command"] == answer["engine_command"]
        assert len(answer["torchrun"]) > 20


@pytest.mark.parametrize("name", sorted(PLANS))
def test_torchrun_understands_what_the_plan_means(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    plan: LaunchPlan = PLANS[name]
    for rank, answer in enumerate(answers[name]):
        config = answer["torchrun"]
        address = plan.nodes[0].address
        assert config["min_nodes"] == config["max_nodes"] == str(plan.nnodes)
        assert config["nproc_per_node"] == str(plan.nproc_per_node)
        assert config["run_id"] == repr(plan.run_id)
        assert config["rdzv_endpoint"] == repr(f"{address}:{plan.master_port}")
        assert config["rdzv_backend"] == repr("static")
        assert f"'rank': {rank}" in config["rdzv_configs"]
        assert int(answer["timeout"]) == round(plan.join_timeout_s)
        assert config["local_addr"] == repr(plan.nodes[rank].address)
        assert config["max_restarts"] == "0"
        assert config["signals_to_handle"] == repr(SIGNALS_TO_HANDLE)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_a_rank_gets_the_program_and_its_arguments_untouched(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    program = PLANS[name].program
    head = [] if program.no_python else [sys.executable, "-u"]
    head += ["-m"] if program.module else []
    for answer in answers[name]:
        assert answer["command"] == [*head, program.path, *program.args]


# --- the environment -----------------------------------------------------------------

DUMP = """
import json, os, sys
name = f"env{os.environ['RANK']}-{sys.argv[1]}.json"
open(name + ".new", "w").write(json.dumps(dict(os.environ)))
os.rename(name + ".new", name)
"""
DIFFERENT = {
    "DISTRUN_RUN_DIR": "only distrun makes a run directory",
    "DISTRUN_TAG": "only distrun has processes to find again",
    "DISTRUN_REPORT": "only distrun listens on a pipe",
    "DISTRUN_RECORDS": "only distrun asks a rank which collectives it has called",
    "TORCH_FR_BUFFER_SIZE": "only distrun reads torch's record of them",
    "TORCHELASTIC_ERROR_FILE": "torchrun's own error file; distrun reads the exception itself",
    "TORCHELASTIC_SIGNALS_TO_HANDLE": "torchrun's note to its own agent; no rank reads it",
    "MASTER_PORT": "each of the two launches has a free port of its own",
    "TORCHELASTIC_RUN_ID": "each of the two launches is a run of its own",
}
"""Variables of a rank that may differ between torchrun and distrun, and why."""


@pytest.mark.timeout(120)
def test_a_rank_finds_the_same_environment_under_torchrun_and_under_distrun(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "dump.py").write_text(DUMP)
    job = ("launch", "--nproc-per-node", 2, "--strategy", "ddp", "--env", "GREETING=it's me")
    printed = distrun(*job, "--dry-run", "dump.py", "torchrun").stdout
    (line,) = [text for text in printed.splitlines() if not text.startswith("#")]
    as_module = shlex.join([sys.executable, "-m", "torch.distributed.run"])
    pasted = re.sub(r" torchrun --", lambda _: f" {as_module} --", line, count=1)
    assert pasted != line
    outer = subprocess.run(
        shlex.split(pasted), cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert outer.returncode == 0, outer.stderr
    result = distrun(*job, "dump.py", "distrun")
    assert result.returncode == 0, result.stderr
    assert only_run(tmp_path).is_dir()
    for rank in range(2):
        theirs = json.loads((tmp_path / f"env{rank}-torchrun.json").read_text())
        ours = json.loads((tmp_path / f"env{rank}-distrun.json").read_text())
        differing = {
            name: (theirs.get(name), ours.get(name))
            for name in theirs.keys() | ours.keys()
            if theirs.get(name) != ours.get(name)
        }
        assert {n: pair for n, pair in differing.items() if n not in DIFFERENT} == {}
        assert set(differing) == set(DIFFERENT), "the table names what does not differ"
        assert (ours["RANK"], ours["WORLD_SIZE"], ours["GREETING"]) == (str(rank), "2", "it's me")
