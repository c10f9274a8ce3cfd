"""What is shown of processes on GPUs: who they are, and no word that may be a secret."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path

import pytest

from distrun.probe.gpu_processes import named, without_arguments

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["python", "train.py", "--key", SECRET], " train.py"),
        (["python", "-u", "-B", f"/work/{SECRET} x/train.py"], ""),
        (["python", "-u", "-B", "/work/train.py"], " /work/train.py"),
        (["python", "-m", "train.main", SECRET], " -m train.main"),
        (["python", "-m", f"a --key {SECRET}"], ""),
        (["python", "-u", "-m"], ""),
        (["python", "-X", SECRET, "train.py"], ""),
        (["python", "-c", f"HF_TOKEN='{SECRET}'"], ""),
        (["python", f"--key={SECRET}.py"], ""),
        (["python", f"-{SECRET}.py"], ""),
        (["python", "", "train.py"], ""),
        (["/usr/bin/python", "-"], ""),
    ],
)
def test_python_is_shown_with_its_script_or_module(words: list[str], shown: str) -> None:
    assert without_arguments(words) == f"python{shown}"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["vllm", "--api-key", SECRET, "serve"], "vllm"),
        (["tool", "--password", SECRET], "tool"),
        (["/opt/bin/tool", SECRET], "tool"),
        (["bash", "-c", f"HF_TOKEN={SECRET} python x.py"], "bash"),
        (["git", "-m", SECRET], "git"),
        (["torchrun", "train.py", SECRET], "torchrun train.py"),
        ([f"vllm serve --api-key /a/{SECRET}"], "vllm"),
        ([], ""),
        (["", SECRET], ""),
        ([" ", SECRET], ""),
        ([f"python train.py --key {SECRET}", SECRET], "python"),
    ],
)
def test_a_value_of_an_option_is_never_shown(words: list[str], shown: str) -> None:
    assert without_arguments(words) == shown


def test_a_process_at_work_is_named_by_its_program_alone() -> None:
    code = "print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    words = [sys.executable, "-c", code, "--password", SECRET]
    with subprocess.Popen(words, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        ((told,),) = named([[{"pid": process.pid, "used_nbytes": 5}]])
        process.kill()
    assert (told.pid, told.used_nbytes, told.user) == (process.pid, 5, getpass.getuser())
    assert told.command == Path(sys.executable).name
