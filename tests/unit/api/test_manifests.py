"""A job of Kubernetes gets a name that fits, and a script that is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.api.manifests import job_name
from distrun.api.pod_script import read_pod_script
from distrun.errors import UsageError
from distrun.spec.kubernetes_values import MAX_JOB_NAME
from distrun.spec.kubernetes_values import job_name as valid


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("ddp", "ddp-1a2b"),
        ("My_Train.v2", "my-train-v2-1a2b"),
        ("7b", "run-7b-1a2b"),
        ("漢字", "run-1a2b"),
        ("", "run-1a2b"),
        ("-x-", "x-1a2b"),
    ],
)
def test_a_program_gives_its_job_the_name(program: str, name: str) -> None:
    assert job_name(program, "1a2b") == name
    assert job_name(program, "") == name.removesuffix("-1a2b")


@given(st.text(max_size=80), st.sampled_from(["", "1a2b"]))
def test_every_program_gives_a_name_that_kubernetes_takes(program: str, digits: str) -> None:
    name = job_name(program, digits)
    assert valid(name) == name and len(name) <= MAX_JOB_NAME


@pytest.mark.parametrize(
    ("source", "beside"),
    [
        ("import model", "model.py"),
        ("from model import Net", "model.py"),
        ("def f():\n    import model.inner", "model.py"),
        ("import package.part", "package/__init__.py"),
        ("import torch, os", ""),
        ("import models", ""),
        ("'import model'", ""),
    ],
)
def test_a_script_that_needs_a_file_beside_it_is_told(
    source: str, beside: str, tmp_path: Path
) -> None:
    (tmp_path / "model.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    script = tmp_path / "train.py"
    script.write_text(source)
    if not beside:
        assert read_pod_script(script).content == source.encode()
        return
    with pytest.raises(UsageError, match=f"it imports {beside} beside it"):
        read_pod_script(script)
