"""The process that calls NVML, because a call may hang in the driver for ever.

It writes a line of JSON for each part and each call, so that facts read before a hang are kept and
the hanging call is known. `probe.nvml` reads the pipe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from distrun.probe.nvml_call import Failure, NvmlReading, text
from distrun.probe.nvml_device import read_health, read_identity, read_load, read_rest
from distrun.probe.nvml_links import links_between, read_fabric, read_nvlinks, read_pair
from distrun.processes import die_with_parent

_KINDS = {
    "LibraryNotFound": "absent",
    "DriverNotLoaded": "not_loaded",
    "LibRmVersionMismatch": "mismatch",
    "LibraryMismatch": "mismatch",
}
_SENTENCES = {
    "LibraryNotFound": "no NVIDIA driver is installed",
    "DriverNotLoaded": "the NVIDIA driver is installed and not loaded (DriverNotLoaded)",
    "LibRmVersionMismatch": "the NVIDIA library and the loaded kernel module are of different"
    " versions (LibRmVersionMismatch)",
}
Write = Callable[[dict[str, Any]], None]


def main(parent_pid: int, fd: int, quick: bool) -> None:
    """Read everything, then end."""
    die_with_parent(parent_pid)

    def write(part: dict[str, Any]) -> None:
        os.write(fd, json.dumps(part).encode() + b"\n")

    try:
        _read(write, quick)
    except Exception as error:  # the parent must get it, and stderr has no reader
        write({"problem": f"the NVML reader failed: {error!r}", "problem_kind": "failed"})
    write({"done": True})


def _read(write: Write, quick: bool) -> None:
    def announce(call: str) -> None:
        write({"at": call})

    driver = NvmlReading("the driver", announce)
    try:
        driver.call("nvmlInit")
        count = driver.call("nvmlDeviceGetCount")
    except Failure as failure:
        name = str(failure)
        problem = _SENTENCES.get(name, f"NVML cannot be used: {name}")
        write({"problem": problem, "problem_kind": _KINDS.get(name, "failed")})
        return
    driver.ask("nvmlSystemGetDriverVersion", driver_version=text)
    driver.ask("nvmlSystemGetCudaDriverVersion_v2", cuda_driver_version=int)
    driver.ask("nvmlGetExcludedDeviceCount", excluded_gpus=int)
    write({"driver": driver.fields()})

    gpus = [NvmlReading(f"GPU {index}", announce) for index in range(count)]
    handles: dict[int, Any] = {}
    for index, gpu in enumerate(gpus):
        gpu.values["index"] = index
        try:
            handles[index] = gpu.call("nvmlDeviceGetHandleByIndex", index)
        except Failure as failure:  # the other GPUs are still read
            # NVML also counts GPUs that a container may not open
            if str(failure) == "NoPermission":
                write({"refused": index})
                continue
            gpu.values["lost"] = str(failure)
        else:
            read_identity(gpu, handles[index])
        write({"gpu": gpu.fields()})
    for index, handle in handles.items():
        read_health(gpus[index], handle)
        read_load(gpus[index], handle)
        write({"gpu": gpus[index].fields()})
    if not quick:
        for index, handle in handles.items():
            read_rest(gpus[index], handle)
            read_fabric(gpus[index], handle)
            read_nvlinks(gpus[index], handle)
            write({"gpu": gpus[index].fields()})
        _read_pairs(gpus, handles, write, announce)


def _read_pairs(
    gpus: list[NvmlReading], handles: dict[int, Any], write: Write, announce: Callable[[str], None]
) -> None:
    for a in handles:
        for b in handles:
            if a < b:
                pair = NvmlReading(f"GPU {a} and {b}", announce)
                read_pair(pair, handles[a], handles[b])
                joined = pair.values.get("p2p_nvlink")
                nvlinks = links_between(gpus[a].values, gpus[b].values, joined)
                pair.values.update(a=a, b=b, nvlinks=nvlinks)
                pair.values.pop("lost", None)
                write({"pair": pair.fields()})
