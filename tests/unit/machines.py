"""Imaginary machines, and plans for them that are the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distrun.plan.layout import make_plan
from distrun.plan.model import LaunchPlan, NodePlan, Program
from distrun.plan.site import Machine, Site
from distrun.probe.node import THIS_MACHINE
from distrun.probe.snapshot import Gpu, GpuProcess, Host, Node, Nvml, Software
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
    nccl_interface: str | None = None,
    addresses: Mapping[str, str | None] | None = None,
    nvml: Nvml | None = None,
) -> Site:
    """Return a machine whose free port is 40000, or hosts that are like it."""
    found = tuple(gpu(index, busy=index in busy) for index in range(gpus))
    environ = {"CUDA_VISIBLE_DEVICES": visible, "OMP_NUM_THREADS": omp}
    environ |= {"NCCL_SOCKET_IFNAME": nccl_interface}
    node = Node(
        THIS_MACHINE,
        "2026-01-31T23:59:59+00:00",
        nvml or Nvml("" if gpus else "no NVIDIA driver is installed", gpus=found),
        Host(usable_cores=cores, environ={k: v for k, v in environ.items() if v is not None}),
        Software(torch="2.13.0", torch_cuda=cuda),
    )
    if addresses is None:
        return Site((Machine(node),), 40000)
    hosts = [Machine(node, host, address or host, "") for host, address in addresses.items()]
    return Site(tuple(hosts), 29500, emulated=False, asked=False)


def planned(
    site: Site | None = None,
    *,
    header: Header | None = None,
    secret_env: Mapping[str, str] | None = None,
    cold_reason: str = "",
    **fields: Any,
) -> LaunchPlan:
    """Plan a job whose fields are given as flags."""
    job = read.validated(Job, {"script": "train.py", **fields}, "flag")
    site = site or machine()
    if job.hosts and site.emulated:
        node, interface = site.head.node, job.interface or ""
        hosts = [Machine(node, host.label, host.name, interface) for host in job.hosts]
        site = Site(tuple(hosts), 29500, emulated=False, asked=False)
    return make_plan(
        job,
        dict.fromkeys(fields, "flag"),
        header or Header(),
        site,
        run_id=RUN_ID,
        secret_env=secret_env or {},
        workdir="/home/ada",
        cold_reason=cold_reason,
    )


def plan_of(
    program: Program, environ: Mapping[str, str], secrets: tuple[str, ...] = ()
) -> LaunchPlan:
    """Return a plan with exactly this program and environment."""
    node = NodePlan(0, "node0", "127.0.0.1", dict(environ))
    return replace(planned(), program=program, nodes=(node,), secrets=secrets)
