"""Whatever words a script is given, its ranks get those and no others.

From distrun's command line through the plan, the printed line, a shell, torchrun's own
parser and its macros, to the command of a rank. torchrun stays in a child process that is
asked a line at a time, because importing torch is slow and stays.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distrun.cli.app import app
from distrun.plan.model import Program
from distrun.plan.show import torchrun_line
from tests.conftest import only_run
from tests.unit.machines import plan_of

Run = Callable[..., subprocess.CompletedProcess[str]]
Torchrun = Callable[[list[str]], list[str]]

TORCHRUN = Path(str(find_spec("torch").origin)).parent / "distributed" / "run.py"  # type: ignore[union-attr]
OPTIONS = sorted(set(re.findall(r'"(--?[a-z][\w-]*)",$', TORCHRUN.read_text(), re.MULTILINE)))
COMMAND = """
import json, sys
from pathlib import Path
from torch.distributed import run
from torch.distributed.elastic.utils.api import macros

for line in sys.stdin:
    try:
        config, command, words = run.config_from_args(run.parse_args(json.loads(line)))
        Path(config.logs_specs.root_log_dir).rmdir()  # the parser makes one each time
        answer = [command, *macros.substitute(words, "7")]
    except SystemExit as refused:
        answer = ["torchrun refuses it", str(refused)]
    print(json.dumps(answer), flush=True)
"""

prefixes = st.sampled_from(OPTIONS).flatmap(
    lambda option: st.integers(1, len(option)).map(lambda length: option[:length])
)
texts = st.text(st.characters(exclude_characters="\0"), max_size=8)
dollars = st.sampled_from(["$$", "$", "${local_rank}", "$local_rank", "$$HOME", "${", "--x=${A}"])
hyphens = st.sampled_from(["--", "-", "---", "--=", "-m", "--help", "-h", "--version", ""])
words = prefixes | hyphens | dollars | texts | st.builds("{}={}".format, prefixes, texts)


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torchrun]:
    """Return the command of a rank that torchrun's parser makes of a command line."""
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path_factory.mktemp("t"))},
    )
    with child:
        assert child.stdin and child.stdout
        asked, answers = child.stdin, child.stdout

        def ask(arguments: list[str]) -> list[str]:
            print(json.dumps(arguments), file=asked, flush=True)
            return list(json.loads(answers.readline()))

        yield ask


def typed(*command_line: str) -> Program:
    """Return the program that distrun's own command line names."""
    command = typer.main.get_command(app).commands["launch"]  # type: ignore[attr-defined]
    given = command.make_context("launch", list(command_line)).params
    args = tuple(given["args"] or ())
    return Program(given["script"], args, given["module"], given["no_python"])


def test_the_options_of_torchrun_are_known() -> None:
    assert {"--run-path", "--log-dir", "--nnodes", "--start-method", "-m"} <= set(OPTIONS)


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from([(), ("--module",), ("--no-python",)]),
    script=words.filter(bool),
    args=st.lists(words, max_size=5),
)
@example(kind=(), script="train.py", args=["--run", "exp7"])
@example(kind=(), script="--", args=["--", "--"])
def test_a_rank_gets_the_words_that_were_typed(
    torchrun: Torchrun, kind: tuple[str, ...], script: str, args: list[str]
) -> None:
    program = typed(*kind, "--", script, *args)
    assert (program.script, program.args) == (script, tuple(args))
    line = shlex.split(torchrun_line(plan_of(program, {}), 0))
    head = [] if program.no_python else [sys.executable, "-u", *["-m"] * program.module]
    path = script if program.no_python else program.path
    assert torchrun(line[line.index("torchrun") + 1 :]) == [*head, path, *args]


ARGS = [
    *("--run", "exp7", "--log", "x", "--n", "3", "--r=16", "--local"),
    *("--start", "0", "--mo", "0.9", "--", "--nnodes", "2", "$$", "${local_rank}"),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_launch_hands_its_script_words_that_torchrun_would_take(
    method: str, distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "words.py").write_text("import sys\nprint(sys.argv[1:])\n")
    done = distrun(*("launch", "--start-method", method, "--nproc-per-node", 1, "words.py", *ARGS))
    assert done.returncode == 0, done.stderr
    log = only_run(tmp_path) / "logs" / "node0" / "rank0.log"
    assert log.read_text() == f"{ARGS}\n"
