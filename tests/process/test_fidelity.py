"""A rank, warm or cold, cannot be told apart from `python -u recipe.py`.

One table of scripts. Each is run by python, by a cold and by a warm launch, in three
directories that are alike; what it printed, its exit code and the files it wrote must be
equal, but for the differences listed at `LAUNCHER_SETS` and `normalised`.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distrun.probe.script import read_script
from tests.conftest import SCENARIOS, only_run

FIDELITY = SCENARIOS / "fidelity"
Launch = Callable[..., subprocess.CompletedProcess[str]]

SIBLING = """
import warnings

def warn(text):
    warnings.warn(text, UserWarning, stacklevel=2)

def warn_itself(text):
    warnings.warn(text, DeprecationWarning)
"""

# The launcher has to tell a rank its place in the job, and marks its processes.
LAUNCHER_SETS = frozenset(
    (
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"),
        *("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"),
        *("TORCHELASTIC_USE_AGENT_STORE", "TORCH_NCCL_ASYNC_ERROR_HANDLING"),
        *("DISTRUN_RUN_DIR", "DISTRUN_TAG", "DISTRUN_REPORT"),
        *("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),  # every node is on this machine
    )
)


@dataclass(frozen=True)
class Case:
    """A script, and how it is called."""

    name: str
    script: str = ""
    """Source of `recipe.py`; without one, the file of that name among the scenarios."""
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    call: tuple[str, ...] = ("recipe.py",)
    stdin: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0
    """As a shell would see it: 128+n for death by signal n."""
    prints: str = ""
    """A part of the output, so that a case cannot pass by doing nothing."""
    starts_cold: str = ""
    """Why the launcher says that it starts this script cold by itself."""
    run_timeout_s: float = 60.0


@dataclass(frozen=True)
class Outcome:
    output: str
    exit_code: int
    files: dict[str, str]


PLACE = (FIDELITY / "place.py").read_text()
ODD_DIRECTORY = 'it\'s "$HOME" \n ünïcode `x`'
MAIN_FAILS = """
def inner():
    raise KeyError("deep")

def outer():
    try:
        inner()
    except KeyError as error:
        raise ValueError("shallow") from error

"""

CASES = [
    Case("facts", call=("recipe.py", "--lr", "0.1", "--", "-x", ""), prints="__spec__: None"),
    Case(
        "inside",
        files={"sibling.py": SIBLING, "data/numbers.txt": "1 2 3\n"},
        prints="a sibling's caller",
    ),
    Case("pools", prints="forkserver 3"),
    Case("loaders", exit_code=1, prints="no item 0", environ={"OMP_NUM_THREADS": "1"}),
    Case("farewell", exit_code=1, prints="AssertionError: sums"),
    # --- how a script is named ---------------------------------------------------------
    Case(
        "a symlink behind dots",
        files={"far/place.py": PLACE, "far/sibling.py": "", "sub/x": ""},
        links={"link": "far/place.py"},
        call=("./sub/../link", "."),
        exit_code=1,
        prints="where am I?",
    ),
    Case(
        "an unusual name",
        files={f"{ODD_DIRECTORY}/-a %s{{0}} .py": PLACE, f"{ODD_DIRECTORY}/sibling.py": ""},
        call=(f"{ODD_DIRECTORY}/-a %s{{0}} .py", "$HOME", "a b", "ü\n", "*"),
        exit_code=1,
        prints="where am I?",
    ),
    Case(
        "a package by -m",
        files={
            "pkg/__init__.py": "print('init', __name__, __file__)",
            "pkg/__main__.py": (
                "import sys, os\nfrom . import other\n"
                "print(sys.argv, sys.orig_argv[2:], sys.path[0], __name__, __package__)\n"
                "print(__spec__.name, __file__, __cached__, sorted(globals()))\n"
                "print(sys.flags, type(__loader__), os.getcwd())\n"
                "raise SystemExit(5)"
            ),
            "pkg/other.py": "print('other', __name__)",
        },
        call=("-m", "pkg", "--flag", "x"),
        exit_code=5,
        prints="other pkg.other",
    ),
    Case(
        "a module by -m that fails",
        files={
            "pkg/__init__.py": "",
            "pkg/mod.py": (
                "import pickle, sys\nfrom .other import value\n\n"
                "class Here: pass\n\nif __name__ == '__main__':\n"
                "    print(value, sys.argv, type(pickle.loads(pickle.dumps(Here()))))\n"
                "    raise ValueError('in a module')\n"
            ),
            "pkg/other.py": "value = 7",
        },
        call=("-m", "pkg.mod", "1"),
        exit_code=1,
        prints="__main__.Here",
    ),
    # --- what it is given --------------------------------------------------------------
    Case(
        "stdin",
        "import subprocess, sys\n"
        "print(input('name? '), input())\n"
        "print(sys.stdin.readline(), end='')\nbreakpoint()\nx = 7\nprint(x)\n"
        "print(repr(sys.stdin.read()))\n"
        "try:\n    input('more? ')\nexcept EOFError as error:\n    print('', error)",
        stdin="Ada\nLovelace\nthird\nnext\np x\nc\nthe\nrest ü",
        prints="'the\\nrest ü'",
    ),
    Case(
        "python's own variables",
        "import sys, warnings\nprint(sys.fidelity, sys.warnoptions, hash('text'), 'snow \\u2603')\n"
        "print(sys.path, sys.flags.hash_randomization, sys.stdout.encoding)\n"
        "warnings.warn('an error now')",
        files={"site/sitecustomize.py": "import sys\nsys.fidelity = 'sitecustomize was here'\n"},
        environ={
            "PYTHONPATH": "site",
            "PYTHONWARNINGS": "error::UserWarning",
            "PYTHONHASHSEED": "7",
            "PYTHONSAFEPATH": "1",
            "PYTHONIOENCODING": "ascii:backslashreplace",
        },
        exit_code=1,
        prints=r"snow \u2603",
    ),
    Case(
        "stderr is not stdout",
        "import os, sys\nos.dup2(os.open('err', os.O_WRONLY | os.O_CREAT), 2)\n"
        "print('out'); print('err', file=sys.stderr); os.system('echo on 2 >&2')\n"
        "import warnings; warnings.warn('goes to stderr'); input('a prompt ')\n",
        stdin="answer\n",
    ),
    # --- siblings that take the place of modules which torch imports ----------------------
    Case(
        "siblings that shadow the standard library",
        files={
            "sub/recipe.py": "import queue, random\nprint(queue.MINE, random.MINE)\n",
            "sub/queue.py": "MINE = 'my queue'",
            "sub/random.py": "MINE = 'my random'",
        },
        call=("sub/recipe.py",),
        prints="my queue my random",
        starts_cold="takes the place of",
    ),
    # --- how it ends ----------------------------------------------------------------------
    Case("exit with a text", "import sys\nsys.exit('the text')", exit_code=1, prints="the text"),
    Case("exit by the builtin, below 0", "exit(-1)", exit_code=255),
    Case(
        "exit at once",
        "import atexit, os\natexit.register(print, 'never')\nos._exit(7)",
        exit_code=7,
    ),
    Case("a chain of errors", f"{MAIN_FAILS}outer()", exit_code=1, prints="direct cause"),
    Case(
        "a group of errors",
        f"{MAIN_FAILS}try:\n    outer()\nexcept ValueError as error:\n"
        "    error.add_note('a note')\n"
        "    raise ExceptionGroup('two', [error, OSError(2, 'none')])",
        exit_code=1,
        prints="ExceptionGroup",
    ),
    Case(
        "a sibling with a syntax error",
        "import broken",
        files={"broken.py": "def f(:\n    pass\n"},
        exit_code=1,
        prints="SyntaxError",
    ),
    Case(
        "warnings of the compiler, bytes of another encoding",
        "# coding: latin-1\nname = '\u00e9\u00fc'\nif name is 1: pass\n"
        "print(name)\nraise ValueError('\\d\u00e9')",
        exit_code=1,
        prints="SyntaxWarning",
    ),
    Case(
        "an excepthook of the script's own",
        "import sys, traceback\n"
        "def hook(kind, error, tb):\n"
        "    print('hook', kind, error, [f.f_code.co_name for f, _ in traceback.walk_tb(tb)])\n"
        "    print([f.f_code.co_name for f, _ in traceback.walk_tb(error.__traceback__)])\n"
        "    raise LookupError('the hook is broken')\n"
        f"sys.excepthook = hook\n{MAIN_FAILS}outer()",
        exit_code=1,
        prints="Original exception was",
    ),
    Case(
        "an error that cannot be printed",
        "class Odd(BaseException):\n    def __str__(self):\n        raise ValueError\nraise Odd",
        exit_code=1,
        prints="<exception str() failed>",
    ),
    Case(
        "interrupted",
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('once')\nos.kill(os.getpid(), signal.SIGINT)",
        exit_code=130,
        prints="KeyboardInterrupt",
    ),
    Case(
        "killed by a segmentation fault",
        "import os, signal\nprint('before')\nos.kill(os.getpid(), signal.SIGSEGV)",
        exit_code=139,
        prints="before\n",
    ),
    Case(
        "ended by SIGTERM",
        "import os, signal, atexit\natexit.register(print, 'never')\n"
        "os.kill(os.getpid(), signal.SIGTERM)",
        exit_code=143,
    ),
    Case(
        "stdout that cannot be flushed",
        "import sys\nsys.stdout = open('/dev/full', 'w')\nprint('lost')",
        exit_code=120,
        prints="No space left",
    ),
    Case(
        "a forked child that ends like a script",
        "import atexit, os, sys\natexit.register(print, 'atexit in both')\nchild = os.fork()\n"
        "if child == 0:\n    sys.exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\nchild = os.fork()\n"
        "if child == 0:\n    raise ValueError('in the child')\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n",
        prints="in the child",
    ),
    Case(
        "another program in its place",
        "import os, sys\nprint('before')\n"
        "os.execv('/bin/sh', ['sh', '-c', 'ls /proc/self/fd | head -3; cat; exit 9'])",
        stdin="for the shell\n",
        exit_code=9,
        prints="for the shell",
    ),
]


def normalised(text: str, directory: Path) -> str:
    """Take out what may differ: addresses of objects, and the directory's own name."""
    text = text.replace(str(directory), "<dir>")
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def without_the_launchers_variables(output: str) -> str:
    """Drop the lines `environment NAME=…` of what a launcher has to set."""
    return "".join(
        line
        for line in output.splitlines(keepends=True)
        if line.removeprefix("environment ").partition("=")[0] not in LAUNCHER_SETS
    )


def written(directory: Path) -> dict[str, str]:
    """Return the files below a directory, as what a reader would see of them."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if name.partition("/")[0] == "runs" or path.is_dir():
            continue
        is_code = path.suffix == ".pyc"  # holds the time of its source
        text = "" if is_code else path.read_bytes().decode("utf-8", "backslashreplace")
        found[name] = normalised(text, directory)
    return found


def laid_out(case: Case, directory: Path) -> Path:
    source = case.script
    if not source and (FIDELITY / f"{case.name}.py").is_file():
        source = (FIDELITY / f"{case.name}.py").read_text()
    encoding = "latin-1" if "coding: latin-1" in source else "utf-8"
    files = {**case.files, **({"recipe.py": source} if source else {})}
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(text.encode(encoding))
    for name, target in case.links.items():
        (directory / name).symlink_to(target)
    return directory


def environment(case: Case) -> dict[str, str]:
    # The launcher shares the cores out among the ranks; python would be told nothing.
    environ = {"OMP_NUM_THREADS": "2", **os.environ, **case.environ}
    for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):  # they would hide differences
        environ.pop(name, None)
    if "PYTHONPATH" in case.environ and "PYTHONPATH" in os.environ:
        environ["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    return environ


def by_python(case: Case, directory: Path) -> Outcome:
    laid_out(case, directory)
    done = subprocess.run(
        [sys.executable, "-u", *case.call],
        cwd=directory,
        env=environment(case),
        input=case.stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=case.run_timeout_s,
        start_new_session=True,  # so that Ctrl-C and kill reach the ranks through the launcher
    )
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Outcome(seen(done.stdout, directory), code, written(directory))


def by_distrun(
    case: Case, directory: Path, launch: Launch, method: str
) -> tuple[Outcome, subprocess.CompletedProcess[str]]:
    laid_out(case, directory)
    done = launch(
        *("launch", "--nproc-per-node", 1, "--start-method", method, *case.call),
        cwd=directory,
        env=environment(case),
        stdin=None,
        input=case.stdin,
        timeout_s=case.run_timeout_s,
    )
    logs = directory / "runs"
    assert logs.is_dir(), f"{done.stdout}\n{done.stderr}"
    log = only_run(directory) / "logs" / "node0" / "rank0.log"
    output = log.read_bytes() if log.exists() else b""
    return Outcome(seen(output, directory), done.returncode, written(directory)), done


def seen(output: bytes, directory: Path) -> str:
    text = output.decode("utf-8", "backslashreplace")
    return without_the_launchers_variables(normalised(text, directory))


def difference(expected: Outcome, found: Outcome, by: str) -> str:
    """Return a diff for people, empty if there is none."""

    def lines(outcome: Outcome) -> list[str]:
        parts = [f"exit code {outcome.exit_code}", *outcome.output.splitlines()]
        for name, text in outcome.files.items():
            parts += [f"--- file {name!r}", *text.splitlines()]
        return parts

    if expected == found:
        return ""
    diff = difflib.unified_diff(lines(expected), lines(found), "python", by, lineterm="", n=1)
    return "\n" + ("\n".join(diff) or f"{expected!r}\n{found!r}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_script_cannot_tell_distrun_from_python(
    case: Case, tmp_path: Path, distrun: Launch
) -> None:
    if "ExceptionGroup" in case.script and sys.version_info < (3, 11):
        pytest.skip("python 3.10 has no exception groups")
    expected = by_python(case, tmp_path / "pyth")
    assert case.prints in expected.output
    assert expected.exit_code == case.exit_code
    differences = ""
    for by, method in (("cold", "spawn"), ("warm", "forkserver")):
        found, done = by_distrun(case, tmp_path / by, distrun, method)
        differences += difference(expected, found, by)
        says_cold = [line for line in done.stderr.splitlines() if "starts cold" in line]
        if by == "warm" and case.starts_cold:
            assert len(says_cold) == 1 and case.starts_cold in says_cold[0]
        else:
            assert not says_cold
    assert not differences, differences


def test_torch_compile_works_in_a_warm_rank(tmp_path: Path, distrun: Launch) -> None:
    # In an empty cache g++ has to run; python would take as long and print the same.
    environ = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    case = Case("compiled", environ=environ, run_timeout_s=110)
    warm, _ = by_distrun(case, tmp_path / "warm", distrun, "forkserver")
    assert warm.output.splitlines() == [str([1.0] * 8), "graphs 1", "another process True"]
    assert warm.exit_code == 0


SEEDS = """
import random, numpy, torch
def numbers():
    drawn = random.random(), numpy.random.rand(), torch.rand(1).item(), torch.initial_seed()
    print(*map(repr, drawn))
numbers()
random.seed(1), numpy.random.seed(2), torch.manual_seed(3)
numbers()
"""


def test_ranks_draw_numbers_of_their_own_until_they_are_seeded(
    tmp_path: Path, distrun: Launch
) -> None:
    case = Case("seeds", SEEDS)
    seeded = by_python(case, tmp_path / "pyth").output.splitlines()[1]
    unseeded = []
    for run in ("first", "second"):
        directory = laid_out(case, tmp_path / run)
        distrun("launch", "--nproc-per-node", 2, "recipe.py", cwd=directory)
        for rank in (0, 1):
            log = only_run(directory) / "logs" / "node0" / f"rank{rank}.log"
            own, after_seeding = log.read_text().splitlines()
            unseeded.append(own.split())
            assert after_seeding == seeded
    for drawn in zip(*unseeded, strict=True):  # random's, numpy's, torch's, torch's seed
        assert len(set(drawn)) == 4, drawn


SETS_ENVIRONMENT = {
    "in the script": {
        "recipe.py": "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch",
    },
    "in main, where torch is imported too": {
        "recipe.py": (
            "from os import environ\ndef main():\n    environ.update(OMP_NUM_THREADS='1')\n"
            "    import torch\nmain()\nimport torch"
        ),
    },
    "in a package beside it": {
        "recipe.py": "import settings.threads\nimport torch",
        "settings/__init__.py": "from . import threads",
        "settings/threads.py": "import os\nos.environ |= {'OMP_NUM_THREADS': '1'}",
    },
}


@pytest.mark.parametrize("files", SETS_ENVIRONMENT.values(), ids=SETS_ENVIRONMENT)
def test_a_script_that_prepares_the_environment_for_torch_starts_cold_by_itself(
    files: dict[str, str], tmp_path: Path, distrun: Launch
) -> None:
    files = files | {"recipe.py": files["recipe.py"] + "\nprint(torch.get_num_threads())\n"}
    case = Case("environment", files=files)
    expected = by_python(case, tmp_path / "pyth")
    assert expected.output == "1\n"
    found, done = by_distrun(case, tmp_path / "dist", distrun, "forkserver")
    assert not (diff := difference(expected, found, "distrun")), diff
    assert len([line for line in done.stderr.splitlines() if "starts cold" in line]) == 1


WARM = [
    "import torch, os\nos.environ['OMP_NUM_THREADS'] = '1'",
    "import os\nos.environ['WANDB_MODE'] = 'offline'\nimport torch",
    "import helper\nimport os\nos.environ['A'] = '1'",
    "import os\nprint(os.environ['A'], os.environ.get('B'))\nimport torch",
]
COLD = [
    "import os\nif os.name:\n    os.environ.setdefault('A', '1')\n    import torch",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
    "import os\nos.environ['A'] = '1'\nimport torch",
    "import os\ndel os.environ['A']\nimport torch",
    "import os\ntry:\n    os.unsetenv('A')\nfinally:\n    import torch",
    "from pkg import setting\nimport torch",
    "import pkg.inner\nimport torch",
]


@pytest.mark.parametrize("source", [*WARM, *COLD])
def test_only_what_torch_could_read_makes_a_script_start_cold(source: str, tmp_path: Path) -> None:
    files = {
        "recipe.py": source,
        "helper.py": "import torch",
        "pkg/__init__.py": "",
        "pkg/setting.py": "import os\nos.environ['A'] = '1'",
        "pkg/inner.py": "from . import setting",
    }
    laid_out(Case("reading", files=files), tmp_path)
    script = read_script(str(tmp_path / "recipe.py"), module=False, no_python=False)
    assert bool(script.cold_reason) == (source in COLD), script.cold_reason


def test_a_warm_rank_has_torch_before_it_asks_and_a_cold_one_has_not(
    tmp_path: Path, distrun: Launch
) -> None:
    # Without this, every other test here would pass with nothing warm in it.
    case = Case("warm", "import sys\nprint('torch' in sys.modules)")
    for method, expected in (("forkserver", "True\n"), ("spawn", "False\n")):
        found, _ = by_distrun(case, tmp_path / method, distrun, method)
        assert found.output == expected


@pytest.mark.xfail(reason="the frames of the launcher lie below the script's first", strict=True)
def test_the_stack_ends_with_the_script(tmp_path: Path, distrun: Launch) -> None:
    # What is left to see of it: walks of the stack (traceback.print_stack, pdb's `where`), a
    # warning whose stacklevel reaches beyond the script, six calls less before RecursionError.
    case = Case("stack", "import traceback\ntraceback.print_stack()")
    expected = by_python(case, tmp_path / "pyth")
    found, _ = by_distrun(case, tmp_path / "warm", distrun, "forkserver")
    assert not difference(expected, found, "warm")
