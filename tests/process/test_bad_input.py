"""Whatever is typed wrong is refused in one sentence; whatever is only odd works.

That no process is left is asserted after every test by the autouse fixture.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import only_run

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.timeout(60), pytest.mark.ci_cases(20)]

FILES: dict[str, str | bytes] = {
    "train.py": "print('trained')\n",
    "run.sh": "#!/bin/sh\necho hi\n",
    "binary.py": b"\x7fELF\2\1\1\0\0\0\0",
    "latin.py": b"s = '\xe9'\n",
    "broken.py": "import os\n\ndef main():\n    retrun 1\n",
    "header.py": "# /// script\n# [tool.distrun]\n# strategi = 'ddp'\n# ///\n",
    "bad_toml.py": "# /// script\n# [tool.distrun\n# ///\n",
    "picky.py": (
        "# /// script\n# [tool.distrun.constraints]\n# world-size = {multiple-of = 4}\n# ///\n"
    ),
    "folder/train.py": "",
    "pkg/__init__.py": "",
    "a file": "",
    "config.toml": "[tool.distrun]\nnodez = 2\n",
    "value.toml": "[tool.distrun]\nnodes = 'two'\n",
    "no_toml.toml": "[tool.distrun",
    "no_table.toml": "[project]\nname = 'x'\n",
    "hosts.txt": "a slots=4\nb slots=x\n",
    "twice.txt": "a\n\na\n",
    "words.env": "A=1\nhunter2\n",
    "quote.env": "PASSWORD='hunter2\n",
    "binary.env": b"PASSWORD=hunter2\xff\n",
}


class Wrong(NamedTuple):
    """A command line that cannot be done, and what is said of it."""

    words: str | list[str]
    """After `distrun launch`; text is split at spaces."""
    said: str
    hint: str = ""
    code: int = 2


WRONG = {
    # the script
    "missing": Wrong("trian.py", "script 'trian.py' does not exist", "did you mean 'train.py'?"),
    "a recipe's name": Wrong("fsdp", "script 'fsdp' does not exist", "`distrun recipes copy fsdp`"),
    "missing, nothing near": Wrong("zzzzz", "script 'zzzzz' does not exist"),
    "empty name": Wrong([""], "script ''"),
    "directory": Wrong("folder", "script 'folder' is a directory", "-m folder runs a package"),
    "shell script": Wrong("run.sh", "'run.sh' is not Python", "--no-python runs a program"),
    "binary": Wrong("binary.py", "script 'binary.py' is not Python: "),
    "another encoding": Wrong("latin.py", "script 'latin.py' has a syntax error in line 1"),
    "syntax error": Wrong(
        "broken.py", "script 'broken.py' has a syntax error in line 4: invalid syntax: retrun 1"
    ),
    "module missing": Wrong(
        "-m pkg.nope", "module 'pkg.nope' is not a module: 'pkg.nope' was not found", "-m searches"
    ),
    "module without main": Wrong("-m pkg", "module 'pkg' is a package without a __main__ module"),
    "module by file name": Wrong("-m train.py", "module 'train.py' is not a module"),
    "module and program": Wrong(
        "-m --no-python train", "-m and --no-python exclude each other", "leave one of them out"
    ),
    "program missing": Wrong(
        "--no-python no-such-program", "script 'no-such-program' is not an executable program"
    ),
    # numbers and words
    "nodes 0": Wrong("--nodes 0 train.py", "--nodes '0' is below 1"),
    "nodes 4:2": Wrong("--nodes 4:2 train.py", "--nodes '4:2' has its minimum 4 above its"),
    "nodes two": Wrong("--nodes two train.py", "--nodes 'two' is neither a number nor MIN:MAX"),
    "nodes -1": Wrong("--nodes -1 train.py", "--nodes '-1' is neither a number nor MIN:MAX"),
    "no nodes": Wrong(["--nodes", "", "train.py"], "--nodes '' is neither a number nor MIN:MAX"),
    "nproc 0": Wrong("--nproc-per-node 0 train.py", "--nproc-per-node '0' is below 1"),
    "nproc x": Wrong("--nproc-per-node x train.py", "--nproc-per-node 'x' is neither auto, gpu,"),
    "nproc gpu": Wrong(
        "--nproc-per-node gpu train.py",
        "--nproc-per-node gpu finds no GPU: ",
        "--nproc-per-node cpu",
        code=3,
    ),
    "gpus 0": Wrong("--gpus 0 train.py", "--gpus 0 asks for GPUs", "leave --gpus out", code=3),
    "gpus free": Wrong("--gpus free:1 train.py", "--gpus free:1 asks for GPUs", code=3),
    "gpus x": Wrong("--gpus x train.py", "--gpus 'x' is neither a list of GPU numbers"),
    "strategy": Wrong("--strategy fdsp train.py", "unknown strategy 'fdsp'", "did you mean 'fsdp'"),
    "dp and two": Wrong(
        "--strategy dp --nproc-per-node 2 train.py", "strategy dp is one process", "--strategy ddp"
    ),
    "constraint": Wrong(
        "--nproc-per-node 2 picky.py",
        "picky.py needs a world-size of a multiple of 4, this launch has 2 (1 × 2)",
        "change --nodes or --nproc-per-node",
    ),
    "restarts": Wrong("--max-restarts -1 train.py", "--max-restarts '-1' is refused"),
    "port": Wrong("--master-port 99999 train.py", "--master-port '99999' is refused"),
    "time limit": Wrong("--time-limit soon train.py", "--time-limit 'soon' is not a duration"),
    "time limit 0": Wrong("--time-limit 0 train.py", "--time-limit '0' is not above 0"),
    "grace": Wrong("--grace -1 train.py", "--grace '-1' is not a duration"),
    "join timeout": Wrong("--join-timeout 1w train.py", "--join-timeout '1w' is not a duration"),
    "start method": Wrong("--start-method fork train.py", "--start-method 'fork' is refused"),
    "only rank": Wrong("--only-rank x train.py", "--only-rank 'x' is not a list", "--only-rank 0"),
    "hosts twice": Wrong("--hosts a,a --dry-run train.py", "--hosts: 'a' is named twice"),
    "hosts twice in a file": Wrong(
        "--hostfile twice.txt --dry-run train.py",
        "twice.txt:3:1: 'a' is on line 1 already",
        "for 2 ranks on it: a slots=2",
    ),
    "a wrong hostfile": Wrong(
        "--hostfile hosts.txt train.py", "hosts.txt:2:3: 'slots=x' is not a number of ranks"
    ),
    "no hostfile": Wrong("--hostfile none.txt train.py", "hostfile 'none.txt': No such file"),
    "an empty hostfile": Wrong("--hostfile folder/train.py train.py", "names no host"),
    "hosts and a hostfile": Wrong(
        "--hosts a --hostfile twice.txt train.py",
        "--hostfile: 'twice.txt' and hosts exclude each other",
        "leave one of them out",
    ),
    "hosts and nodes": Wrong(
        "--hosts a,b --nodes 3 --dry-run train.py",
        "--nodes 3 is more than the hosts that are named: 2",
    ),
    # files
    "config key": Wrong(
        "--config config.toml train.py", "unknown key 'nodez' in the config file", "did you mean"
    ),
    "config value": Wrong("--config value.toml train.py", "nodes 'two' in the config file value"),
    "config missing": Wrong("--config none.toml train.py", "config file 'none.toml': No such file"),
    "config directory": Wrong("--config folder train.py", "config file 'folder': Is a directory"),
    "config no TOML": Wrong("--config no_toml.toml train.py", "'no_toml.toml' is not TOML"),
    "config no table": Wrong(
        "--config no_table.toml train.py", "has no table [tool.distrun]", "`distrun config schema`"
    ),
    "header key": Wrong(
        "header.py", "unknown key 'strategi' in the header of header.py", "did you mean 'strategy'"
    ),
    "header no TOML": Wrong("bad_toml.py", "header of bad_toml.py is not TOML"),
    "env": Wrong("--env A train.py", "--env 'A' is not NAME=VALUE", "--env A=VALUE"),
    "env no name": Wrong("--env =1 train.py", "--env '' is not NAME=VALUE", "--env NAME=VALUE"),
    "env odd name": Wrong(["--env", "A B=1", "train.py"], "'A B', which cannot be a variable"),
    "env file": Wrong("--env-file none.env train.py", "env file 'none.env': No such file"),
    "env file line": Wrong(
        "--env-file words.env train.py", "'words.env', line 2 is not KEY=VALUE", "put quotes around"
    ),
    "env file quote": Wrong("--env-file quote.env train.py", "line 1 is not KEY=VALUE"),
    "env file bytes": Wrong("--env-file binary.env train.py", "env file 'binary.env': not UTF-8"),
    # where it is recorded
    "runs dir is a file": Wrong(
        ["--runs-dir", "a file", "train.py"], "--runs-dir 'a file' cannot be used", "--runs-dir "
    ),
    "runs dir in a file": Wrong(
        ["--runs-dir", "a file/x", "train.py"], "'a file' is not a directory", "--runs-dir names"
    ),
    "runs dir in /proc": Wrong(
        "--runs-dir /proc --nproc-per-node 1 train.py", "--runs-dir '/proc' cannot be used"
    ),
}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with everything that is wrong in it."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def tree(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_in_one_sentence_and_nothing_is_left(
    distrun: Run, desk: Path, name: str
) -> None:
    wrong = WRONG[name]
    before = tree(desk)
    words = wrong.words.split() if isinstance(wrong.words, str) else wrong.words
    result = distrun("launch", *words)
    refused_as(result, wrong)
    assert tree(desk) == before


def refused_as(result: subprocess.CompletedProcess[str], wrong: Wrong) -> None:
    lines = result.stderr.splitlines()
    assert result.returncode == wrong.code, result.stderr
    assert wrong.said in lines[0]
    assert [line.startswith("distrun: error: ") for line in lines] == [True] + [False] * (
        len(lines) - 1
    )
    hints = [line.removeprefix("distrun: hint: ") for line in lines[1:]]
    assert len(hints) == 1
    assert all(line.startswith("distrun: hint: ") for line in lines[1:])
    assert not wrong.hint or hints[0].startswith(wrong.hint)
    assert "Traceback" not in result.stderr
    assert "None" not in result.stderr
    assert "hunter2" not in result.stderr
    assert result.stdout == ""


def test_a_wrong_key_in_pyproject_is_refused_too(distrun: Run, desk: Path) -> None:
    (desk / "pyproject.toml").write_text("[tool.distrun]\nnproc-per-nod = 2\n")
    refused_as(
        distrun("launch", "train.py"),
        Wrong("", "unknown key 'nproc-per-nod' in the", "did you mean 'nproc-per-node'?"),
    )
    assert not (desk / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_runs_dir_without_the_right_to_write_is_refused(distrun: Run, desk: Path) -> None:
    (desk / "closed").mkdir(mode=0o500)
    refused_as(
        distrun("launch", "--runs-dir", "closed/runs", "train.py"),
        Wrong("", "'closed' is not writable", "--runs-dir names"),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodez", "2", "train.py"], "No such option: --nodez"),
        (["--nodes"], "requires an argument"),
        (["--", "--nodes", "2"], "script '--nodes' does not exist"),
        (["--quiet"], "Missing argument 'SCRIPT'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(
    distrun: Run, desk: Path, words: list[str], said: str
) -> None:
    result = distrun("launch", *words)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (desk / "runs").exists()


# --- odd, and right ------------------------------------------------------------------------

TELL = """
import json, os, sys
with open(os.environ["TELL"], "w") as file:
    json.dump([sys.argv, os.path.basename(__file__), dict(os.environ), __name__], file)
"""


def told(
    distrun: Run, directory: Path, script: str, args: Iterable[str] = (), *flags: str
) -> tuple[list[str], str, dict[str, str]]:
    """Run a script that tells its arguments, its file's name and its variables."""
    (directory / script).write_text(TELL)
    tell = directory / "told.json"
    result = distrun(
        *("launch", "--nproc-per-node", "1", "--env", f"TELL={tell}", *flags, "--", script, *args),
        cwd=directory,
    )
    assert result.returncode == 0, result.stderr
    argv, file, environ, name = json.loads(tell.read_text())
    assert name == "__main__"
    return argv, file, environ


ODD_NAMES = [
    "two words.py",
    "it's.py",
    'so "called".py',
    "two\nlines.py",
    "$HOME.py",
    "a$$b.py",
    "`id`; $(id) & x.py",
    "\u00fcbung \u65e5\u672c \U0001f525.py",
    "back\\slash.py",
    "#comment.py",
    "no suffix",
    "a=b.py",
    "*.py",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_script_may_be_called_whatever_it_likes(distrun: Run, tmp_path: Path, name: str) -> None:
    argv, file, _ = told(distrun, tmp_path, name)
    assert (argv, file) == ([name], name)
    assert only_run(tmp_path).name.isascii()


def test_a_script_may_begin_with_a_hyphen(distrun: Run, tmp_path: Path) -> None:
    argv, file, _ = told(distrun, tmp_path, "-train.py", ["--nodes"])
    assert (argv, file) == (["./-train.py", "--nodes"], "-train.py")


def test_a_script_whose_name_is_no_unicode_runs(distrun: Run, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    argv, file, _ = told(distrun, tmp_path, name)
    assert (argv, file) == ([name], name)


ODD_ARGUMENTS = [
    *("--nodes", "7", "--", "", " ", "two\nlines", "$HOME", "$$", "`id`", "'", '"', "\\", "*"),
    *("-m", "--dry-run", "--help", "-h", "\u00e9", "--nproc-per-node=3", "--local-addr=1.2.3.4"),
]


@pytest.mark.parametrize("args", [ODD_ARGUMENTS, ["--", "--nodes", "2"]])
def test_arguments_reach_the_script_untouched(
    distrun: Run, tmp_path: Path, args: list[str]
) -> None:
    argv, _, _ = told(distrun, tmp_path, "train.py", args)
    assert argv == ["train.py", *args]


def test_a_variable_may_hold_anything(distrun: Run, tmp_path: Path) -> None:
    values = ["two words", "two\nlines", 'it\'s "quoted"', "$HOME `id` $$", "", "a=b", "\u00e9"]
    flags = [word for i, value in enumerate(values) for word in ("--env", f"ODD{i}={value}")]
    environ = told(distrun, tmp_path, "train.py", [], *flags)[2]
    assert [environ[f"ODD{i}"] for i in range(len(values))] == values


def test_a_runs_dir_may_have_any_name(distrun: Run, tmp_path: Path) -> None:
    place = "my runs'\n\u00fc $HOME"
    told(distrun, tmp_path, "train.py", [], "--runs-dir", place)
    (run,) = (tmp_path / place).iterdir()
    assert json.loads((run / "run.json").read_text())["outcome"] == "succeeded"
    assert not (tmp_path / "runs").exists()


def test_a_module_is_run_from_the_current_directory(distrun: Run, desk: Path) -> None:
    result = distrun("launch", "--nproc-per-node", "1", "-m", "folder.train")
    assert result.returncode == 0, result.stderr
    result = distrun("launch", "--nproc-per-node", "1", "-m", "train")
    assert "trained" in result.stdout


def test_a_program_that_is_not_python_runs(distrun: Run, desk: Path) -> None:
    (desk / "run.sh").chmod(0o755)
    for program in ("./run.sh", desk / "run.sh"):
        result = distrun("launch", "--nproc-per-node", "1", "--no-python", program)
        assert (result.returncode, "hi" in result.stdout) == (0, True), result.stderr


@pytest.mark.parametrize("name", ["two\nlines.py", os.fsdecode(b"caf\xe9.py")])
def test_an_odd_name_can_be_planned_and_pasted(distrun: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TELL)
    result = distrun("launch", "--dry-run", name, errors="surrogateescape")
    assert result.returncode == 0, result.stderr
    assert name in result.stdout
    assert not (tmp_path / "runs").exists()


def test_a_secret_on_the_command_line_is_written_nowhere(distrun: Run, tmp_path: Path) -> None:
    (tmp_path / "secret.env").write_text("DB_URL=hunter3\n")
    flags = ["--env", "HF_TOKEN=hunter2", "--env=MY_KEY=hunter2", "--env-file", "secret.env"]
    told(distrun, tmp_path, "train.py", [], *flags)
    for path in only_run(tmp_path).rglob("*"):
        if path.is_file():
            assert b"hunter" not in path.read_bytes(), path
    assert "hunter" not in distrun("show").stdout + distrun("show", "--json").stdout
