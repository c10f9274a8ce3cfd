"""What a script says of itself without being run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distrun.checks.script import check_script
from distrun.errors import UsageError
from distrun.probe.script import Script, read_script


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(source: str | bytes, name: str = "train.py") -> Script:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return read_script(name, module=False, no_python=False)


def module(name: str) -> Script:
    return read_script(name, module=True, no_python=False)


# --- can it run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "",
        "print('hello')\n",
        "#!/usr/bin/env python3\nprint(1)\n",
        "\ufeffprint(1)\n",
        "print(1)\r\nprint(2)\r\n",
        b"# -*- coding: latin-1 -*-\ns = '\xe9'\n",
        "x = '\\d'  # an invalid escape is a warning, no error\n",
        "from __future__ import annotations\n",
    ],
)
def test_a_script_that_compiles_has_no_error(source: str | bytes) -> None:
    found = script(source)
    assert (found.path, found.error, found.cold_reason) == (Path("train.py"), "", "")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("a = 1\nb = = 2\n", "has a syntax error in line 2: invalid syntax: b = = 2"),
        ("def f(:\n", "has a syntax error in line 1: "),
        ("if True:\npass\n", "has a syntax error in line 2: expected an indented block"),
        ("return 1\n", "has a syntax error in line 1: 'return' outside function"),
        ("#!/bin/sh\necho hi\n", "is not Python: its first line names another interpreter"),
        (b"a = 1\0\n", "is not Python: "),
        (b"\x7fELF\2\1\1\0\0\0\0\0\0", "is not Python: "),
        (b"s = '\xe9'\n", "has a syntax error in line 1: (unicode error)"),
        (b"# coding: nonsense\n", "unknown encoding: nonsense"),
        ("x = " + "-" * 200_000 + "1\n", "is nested too deeply"),
    ],
    ids=["assign", "def", "indent", "return", "sh", "NUL", "ELF", "latin", "coding", "deep"],
)
def test_a_script_that_does_not_compile_says_where(source: str | bytes, error: str) -> None:
    found = script(source)
    assert error in found.error
    assert "None" not in found.error
    assert "\n" not in found.error


def test_what_is_no_file_is_no_script(here: Path) -> None:
    assert read_script("none.py", module=False, no_python=False).error == "does not exist"
    assert read_script(".", module=False, no_python=False).error == "is a directory"


@pytest.mark.timeout(5)
def test_a_pipe_is_refused_and_not_waited_for(here: Path) -> None:
    os.mkfifo(here / "pipe.py")
    assert read_script("pipe.py", module=False, no_python=False).error.startswith(
        "is not a regular file"
    )


def test_a_program_is_looked_for_on_the_path() -> None:
    assert read_script("sh", module=False, no_python=True).error == ""
    missing = read_script("no-such-program", module=False, no_python=True)
    assert (missing.path, missing.error) == (None, "is not an executable program")


# --- modules ---------------------------------------------------------------------------


@pytest.fixture
def package(here: Path) -> Path:
    folder = here / "shop_pkg" / "sub"
    folder.mkdir(parents=True)
    for path, text in (
        ("__init__.py", "raise SystemExit('imported')\n"),
        ("sub/__init__.py", ""),
        ("sub/__main__.py", "print(1)\n"),
        ("sub/train.py", "print(1)\n"),
        ("sub/broken.py", "b = = 2\n"),
    ):
        (here / "shop_pkg" / path).write_text(text)
    return here / "shop_pkg"


@pytest.mark.parametrize(
    ("name", "file"),
    [("shop_pkg.sub.train", "sub/train.py"), ("shop_pkg.sub", "sub/__main__.py")],
)
def test_a_module_is_found_and_none_of_its_packages_is_imported(
    package: Path, name: str, file: str
) -> None:
    found = module(name)
    assert (found.path, found.error) == (package / file, "")


def test_an_installed_module_is_found() -> None:
    assert module("json.tool").error == ""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("shop_pkg.nope", "is not a module: 'shop_pkg.nope' was not found"),
        ("shop_pkg.nope.more", "is not a module: 'shop_pkg.nope' was not found"),
        ("shop_pkg.sub.train.x", "is not a module: 'shop_pkg.sub.train.x' was not found"),
        ("nope_at_all", "is not a module: 'nope_at_all' was not found"),
        ("shop_pkg", "is a package without a __main__ module"),
        ("shop_pkg.sub.broken", "has a syntax error in line 1: invalid syntax: b = = 2"),
        ("", "is not a module: '' was not found"),
        ("a..b", "is not a module: "),
        (".", "is not a module: "),
        ("train.py", "is not a module: "),
    ],
)
def test_a_module_that_is_not_there_says_which_part(package: Path, name: str, error: str) -> None:
    assert module(name).error.startswith(error)


# --- warm or cold ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "variable"),
    [
        ("import os\nos.environ['A'] = '1'\nimport torch\n", "A"),
        ("from os import environ\nenviron['A'] = '1'\nimport torch\n", "A"),
        ("import os\nos.environ['A'] = '1'\nfrom torch import nn\n", "A"),
        ("import os\nos.environ.setdefault('A', '1')\nimport torch\n", "A"),
        ("import os\nos.environ.update(A='1')\nimport torch\n", "a variable"),
        ("import os\nos.environ |= {'A': '1'}\nimport torch\n", "a variable"),
        ("import os\ndel os.environ['A']\nimport torch\n", "A"),
        ("import os\nos.putenv('A', '1')\nimport torch\n", "A"),
        ("import os\nfor k in 'AB':\n    os.environ[k] = '1'\nimport torch\n", "a variable"),
        ("import os\nif True:\n    os.environ['A'] = '1'\nimport torch\n", "A"),
        ("import os\ndef f():\n    os.environ['A'] = '1'\nf()\nimport torch\n", "A"),
        ("import os\ntry:\n    os.environ['A'] = '1'\nfinally:\n    pass\nimport torch\n", "A"),
        ("from dotenv import load_dotenv\nload_dotenv()\nimport torch\n", "a variable"),
        ("import os\nos.environ['A'] = '1'\nimport transformers\n", "A"),
    ],
)
def test_a_variable_set_before_torch_means_a_cold_start(source: str, variable: str) -> None:
    assert script(source).cold_reason == f"it sets {variable} before it imports torch"


@pytest.mark.parametrize(
    "source",
    [
        "import torch\nimport os\nos.environ['A'] = '1'\n",
        "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\nimport torch\n",
        "import os\nos.environ['MASTER_PORT'] = '1'\nimport torch\n",
        "import os\nos.environ['HF_HOME'] = '1'\nimport torch\n",
        "import os\nprint(os.environ['A'])\nimport torch\n",
        "import os\nx = os.environ.get('A')\nimport torch\n",
        "import torch.nn as nn, os\nos.environ['A'] = '1'\n",
    ],
)
def test_a_script_that_sets_nothing_torch_reads_starts_warm(source: str) -> None:
    assert script(source).cold_reason == ""


def test_a_neighbour_that_sets_a_variable_is_followed() -> None:
    script("import os\nos.environ['A'] = '1'\nimport b\n", "setup_env.py")
    script("import setup_env\n", "b.py")  # a circle
    found = script("import setup_env\nimport torch\n")
    assert found.cold_reason == "it sets A before it imports torch"
    script("import torch\n", "loads.py")
    assert script("import loads\nimport setup_env\n").cold_reason == ""


def test_a_neighbour_that_does_not_compile_is_the_ranks_own_trouble() -> None:
    script("b = = 2\n", "broken.py")
    assert script("import broken\nimport torch\n").error == ""


@pytest.mark.parametrize("name", ["random.py", "numpy.py", "torch/__init__.py"])
def test_a_neighbour_named_like_a_preloaded_module_means_a_cold_start(name: str) -> None:
    script("", name)
    wanted = name.partition("/")[0].removesuffix(".py")
    reason = script(f"import {wanted}\n").cold_reason
    assert "replaces a module that torch imports" in reason
    assert script("import os\n").cold_reason == ""


# --- the rule over the snapshot --------------------------------------------------------------

HERE = "a path is relative to the current directory"


@pytest.mark.parametrize(
    ("name", "found", "is_module", "message", "hint"),
    [
        (
            "trian.py",
            Script(None, "does not exist"),
            False,
            "script 'trian.py' does not exist",
            "did you mean 'train.py'?",
        ),
        (
            "jobs/evla.py",
            Script(None, "does not exist"),
            False,
            "script 'jobs/evla.py' does not exist",
            "did you mean 'jobs/eval.py'?",
        ),
        ("zzz", Script(None, "does not exist"), False, "script 'zzz' does not exist", HERE),
        ("no/x.py", Script(None, "does not exist"), False, "script 'no/x.py' does not exist", HERE),
        (
            "pkg/sub/",
            Script(None, "is a directory"),
            False,
            "script 'pkg/sub/' is a directory",
            "-m pkg.sub runs a package with a __main__.py",
        ),
        (
            "x.sh",
            Script(Path("x.sh"), "is not Python: its first line names another interpreter"),
            False,
            "script 'x.sh' is not Python: its first line names another interpreter",
            "--no-python runs a program that is not Python",
        ),
        (
            "pkg.x",
            Script(None, "is not a module: 'pkg.x' was not found"),
            True,
            "module 'pkg.x' is not a module: 'pkg.x' was not found",
            "-m searches the current directory and the installed packages",
        ),
    ],
)
def test_the_rule_names_what_is_wrong_and_what_would_do(
    name: str, found: Script, is_module: bool, message: str, hint: str
) -> None:
    Path("train.py").write_text("")
    Path("jobs").mkdir()
    Path("jobs/eval.py").write_text("")
    with pytest.raises(UsageError) as refused:
        check_script(name, found, module=is_module)
    assert (refused.value.message, refused.value.hint) == (message, hint)
    check_script(name, Script(Path("train.py")), module=is_module)


def test_a_path_to_a_folder_above_offers_no_impossible_module() -> None:
    with pytest.raises(UsageError) as refused:
        check_script("/tmp", Script(None, "is a directory"), module=False)
    assert refused.value.hint == "name a script in it"
