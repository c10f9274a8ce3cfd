"""Imaginary machines, and plans for them that are the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distrun.plan.layout import make_plan
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.probe.facts import Facts
from distrun.probe.host import HostCapacity
from distrun.probe.snapshot import Gpu, GpuProcess, Nvml
from distrun.probe.torch_facts import TorchFacts
from distrun.spec import read
from distrun.spec.job import Header, Job

RUN_ID = "20260131-235959-train-beef"


def gpu(index: int, *, busy: bool = False) -> Gpu:
    """Return one GPU, with a process on it if it is busy."""
    there = (GpuProcess(4242, 40 << 30, "ada", "python train.py"),)
    uuid = f"GPU-{index:04x}-uuid"
    return Gpu(index, uuid=uuid, name="NVIDIA H100", processes=there if busy else ())


def machine(
    gpus: int = 0,
    *,
    busy: tuple[int, ...] = (),
    cores: int = 8,
    cuda: str | None = "12.8",
    visible: str | None = None,
    omp: str | None = None,
    addresses: Mapping[str, str | None] | None = None,
) -> Facts:
    """Return the facts of a machine; its free port is always 40000."""
    found = tuple(gpu(index, busy=index in busy) for index in range(gpus))
    return Facts(
        host=HostCapacity(cores),
        torch=TorchFacts("2.13.0", cuda),
        gpus=Nvml("" if gpus else "no NVIDIA driver is installed", gpus=found),
        visible_devices=visible,
        addresses=dict(addresses or {}),
        free_port=40000,
        omp_num_threads=omp,
    )


def planned(
    facts: Facts | None = None,
    *,
    header: Header | None = None,
    secret_env: Mapping[str, str] | None = None,
    cold_reason: str = "",
    **fields: Any,
) -> LaunchPlan:
    """Plan a job whose fields are given as flags."""
    job = read.validated(Job, {"script": "train.py", **fields}, "flag")
    return make_plan(
        job,
        dict.fromkeys(fields, "flag"),
        header or Header(),
        facts or machine(),
        run_id=RUN_ID,
        secret_env=secret_env or {},
        cold_reason=cold_reason,
    )


def plan_of(
    program: Program, environ: Mapping[str, str], secrets: tuple[str, ...] = ()
) -> LaunchPlan:
    """Return a plan with exactly this program and environment."""
    node = NodePlan(0, "node0", "127.0.0.1", dict(environ))
    return replace(planned(), program=program, nodes=(node,), secrets=secrets)
