"""What is wrong in a `distrun check` is refused in one sentence, and nothing is looked at."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
HEALTHY = Path(__file__).parents[1] / "snapshots" / "healthy_8xh100.json"

pytestmark = pytest.mark.ci_cases(8)


class Wrong(NamedTuple):
    """Words after `distrun check`, and what is said of them."""

    words: list[str]
    said: str
    hint: str = ""
    config: str = ""


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the text of a healthy snapshot with one thing changed."""
    node = json.loads(HEALTHY.read_text())
    node = node[0] if isinstance(node, list) else node
    change(node)
    return json.dumps(node)


FILES = {
    "half.json": HEALTHY.read_text()[:2000],
    "newer.json": changed(lambda node: node.update(schema=99)),
    "true.json": changed(lambda node: node.update(schema=True)),
    "extra.json": changed(lambda node: node["host"].update(colour="red")),
    "typed.json": changed(lambda node: node["nvml"]["gpus"][3].update(temperature_c="hot")),
    "lacking.json": changed(lambda node: node.pop("host")),
    "text.json": "no JSON at all",
    "number.json": "42",
    "list.json": "[1, 2]",
    "none.json": "[]",
    "blank.json": " \n",
    "deep.json": "[" * 100_000,
    "bytes.json": "\x00\x01",
}
WRONG = {
    "a file cut short": Wrong(["--from", "half.json"], "snapshot 'half.json' is not JSON: "),
    "another schema": Wrong(["--from", "newer.json"], "'newer.json' has schema 99, not 1"),
    "a schema that is no number": Wrong(["--from", "true.json"], "has schema True, not 1"),
    "a key too many": Wrong(["--from", "extra.json"], "unknown key 'host.colour'"),
    "a value of another type": Wrong(["--from", "typed.json"], "nvml.gpus.3.temperature_c: "),
    "a key too few": Wrong(["--from", "lacking.json"], "host: Field required"),
    "no JSON": Wrong(["--from", "text.json"], "snapshot 'text.json' is not JSON"),
    "a number": Wrong(["--from", "number.json"], "'number.json' contains int, not a node"),
    "a list of numbers": Wrong(["--from", "list.json"], "'list.json' contains int, not a node"),
    "no nodes": Wrong(["--from", "none.json"], "'none.json' contains no node"),
    "blank": Wrong(["--from", "blank.json"], "'blank.json' is empty"),
    "nested without end": Wrong(["--from", "deep.json"], "'deep.json' is not JSON"),
    "bytes": Wrong(["--from", "bytes.json"], "'bytes.json' is not JSON"),
    "/dev/null": Wrong(["--from", "/dev/null"], "'/dev/null' is empty", "`distrun check --save"),
    "/dev/zero": Wrong(["--from", "/dev/zero"], "'/dev/zero' is longer than 64 MiB"),
    "a directory": Wrong(["--from", "."], "snapshot '.': Is a directory"),
    "no file": Wrong(["--from", "nope.json"], "snapshot 'nope.json': No such file"),
    "the second of two": Wrong(["--from", str(HEALTHY), "half.json"], "'half.json' is not JSON"),
    "a file without --from": Wrong(["half.json"], "'half.json' is not asked for", "--from FILE"),
    "a rule with a typo": Wrong(
        ["--ignore", "host.shn"], "--ignore 'host.shn' is not a rule", "did you mean 'host.shm'?"
    ),
    "a rule that is none": Wrong(
        ["--ignore", "xyzzy"], "--ignore 'xyzzy' is not a rule", "`distrun check --explain list`"
    ),
    "an empty rule": Wrong(["--ignore", ""], "--ignore '' is not a rule"),
    "explaining a typo": Wrong(
        ["--explain", "gpu.eccc.mode"], "--explain 'gpu.eccc.mode' is not a rule", "did you mean"
    ),
    "a limit with a typo": Wrong(
        [],
        "unknown key 'shm_wran_nbytes' in [tool.distrun.check]",
        "did you mean 'shm_warn_nbytes'?",
        "[tool.distrun.check]\nshm-wran-nbytes = 1\n",
    ),
    "a limit that is a text": Wrong(
        [],
        "shm_warn_nbytes '1 GiB' in [tool.distrun.check] is refused",
        "a number, in the unit",
        "[tool.distrun.check]\nshm-warn-nbytes = '1 GiB'\n",
    ),
    "a config that ignores a typo": Wrong(
        [],
        "ignore in [tool.distrun.check]: 'host.shn' is not a rule",
        "did you mean 'host.shm'?",
        "[tool.distrun.check]\nignore = ['host.shn']\n",
    ),
    "ignore that is no list": Wrong(
        [], "check.ignore 3 in the config file", "", "[tool.distrun.check]\nignore = 3\n"
    ),
    "check that is a word": Wrong(
        [], "check 'never' in the config file", "true or false", "[tool.distrun]\ncheck = 'never'\n"
    ),
    "a host that is an option": Wrong(
        ["--hosts", "-oProxyCommand=touch owned"], "--hosts: '-oProxyCommand"
    ),
    "a second host that is one": Wrong(["--hosts", "a,-oProxyCommand=x"], "is not a host name"),
    "a host twice": Wrong(["--hosts", "a,a"], "--hosts: 'a' is named twice"),
    "a place that is none": Wrong(["--on", "shs"], "--on 'shs' is unknown", "did you mean 'ssh'?"),
    "ssh without hosts": Wrong(["--on", "ssh"], "--on ssh needs hosts", "--hosts a,b"),
    "a hostfile of a file": Wrong(
        ["--from", str(HEALTHY), "--hostfile", "h"], "--from and --hostfile exclude each other"
    ),
    "a hostfile that is missing": Wrong(["--hostfile", "none"], "hostfile 'none': No such file"),
    "hosts here": Wrong(["--on", "local", "--hosts", "a"], "--on local does not use --hosts"),
    "slurm in no allocation": Wrong(
        ["--on", "slurm"], "--on slurm: there is no allocation", "--nodes"
    ),
    "two screens": Wrong(["--json", "--watch"], "--json and --watch exclude each other"),
    "two other screens": Wrong(["--json", "--report"], "--json and --report exclude each other"),
    "a watch that saves": Wrong(
        ["--watch", "--save", "s.json"], "--watch and --save exclude each other"
    ),
    "a strict watch": Wrong(["--watch", "--strict"], "--watch and --strict exclude each other"),
    "a watch for tests": Wrong(["--watch", "-o", "j.xml"], "--watch and --output exclude"),
    "a deep watch": Wrong(["--watch", "--deep"], "--watch and --deep exclude each other"),
    "a watch without rules": Wrong(["--watch", "--ignore", "host.shm"], "--watch and --ignore"),
    "an explanation that saves": Wrong(
        ["--explain", "host.shm", "--save", "s.json"], "--explain and --save exclude each other"
    ),
    "deep elsewhere": Wrong(
        ["--from", str(HEALTHY), "--deep"], "--from and --deep exclude each other"
    ),
    "nodes": Wrong(["--nodes", "0"], "--nodes '0' is below 1"),
    "ranks": Wrong(["--nproc-per-node", "many"], "--nproc-per-node 'many' is neither auto"),
    "port": Wrong(["--master-port", "99999"], "--master-port '99999' is refused"),
    "a file that cannot be written": Wrong(["--save", "no/s.json"], "no/s.json cannot be written"),
    "another": Wrong(["-o", "no/j.xml"], "no/j.xml cannot be written"),
    "an ending": Wrong(["-o", "c.csv"], "'.csv' is not one of .json, .xml, .md", "-o c.json"),
    "no config": Wrong(["--config", "no.toml"], "config file 'no.toml': No such file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_in_one_sentence(distrun: Run, tmp_path: Path, name: str) -> None:
    wrong = WRONG[name]
    for file in set(FILES) & set(wrong.words):
        (tmp_path / file).write_text(FILES[file])
    if wrong.config:
        (tmp_path / "pyproject.toml").write_text(wrong.config)
    before = set(tmp_path.iterdir())
    result = distrun("check", *wrong.words)
    error, *hints = (x for x in result.stderr.splitlines() if "settings from" not in x)
    assert (result.returncode, result.stdout) == (2, "")
    assert error.startswith("distrun: error: ")
    assert wrong.said in error
    assert len(hints) == 1
    assert hints[0].startswith("distrun: hint: " + wrong.hint)
    assert "Traceback" not in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_program_that_is_not_there_is_the_machines_fault(distrun: Run, tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    for words, said in (
        (("--hosts", "a"), "ssh cannot be started: No such file or directory"),
        (("--on", "slurm", "--nodes", "2"), "--on slurm needs salloc: No such file or directory"),
    ):
        result = distrun("check", *words, env=environ)
        assert result.returncode == 3
        assert said in result.stderr
