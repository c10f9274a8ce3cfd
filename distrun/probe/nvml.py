"""Reads the GPUs of this machine with NVML.

NVML can hang in the driver, so a child process calls it, with a deadline. What the child wrote
before a hang is kept. Only that child imports pynvml.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from distrun.probe.gpu_processes import named
from distrun.probe.reading import LEFT_OUT
from distrun.probe.snapshot import Gpu, GpuPair, NvLink, Nvml
from distrun.wire import Lines

LAUNCH_DEADLINE_S = 5.0
_KILL_LIMIT_S = 0.2
_PROGRAM = """
import json, sys
path, arguments = json.loads(sys.argv[1])
sys.path[:] = path
from distrun.probe.nvml_child import main
main(*arguments)
"""
"""The child has this process's sys.path, and does not search the current directory."""


def not_read(problem: str, kind: str) -> Nvml:
    """Return the snapshot of a driver that was not read."""
    fields = ("driver_version", "cuda_driver_version", "excluded_gpus")
    return Nvml(problem, kind, missing=dict.fromkeys(fields, problem))


class NvmlReader:
    """The running child; `result` waits for it.

    Args:
        deadline_s: Its time limit, from now on.
        quick: Leave out NVLinks, the fabric, pairs, and fields that seldom change.
    """

    def __init__(self, deadline_s: float, *, quick: bool = False) -> None:
        self._deadline_s, self._quick = deadline_s, quick
        self._deadline = time.monotonic() + deadline_s
        self._child: subprocess.Popen[bytes] | None = None
        self._fd = -1
        try:
            ctypes.CDLL("libnvidia-ml.so.1")  # without NVML no child is needed
        except OSError:
            return
        self._fd, theirs = os.pipe()
        arguments = json.dumps([sys.path, [os.getpid(), theirs, quick]])
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM, arguments],
                # Facts have their own pipe: libraries may print to stdout.
                pass_fds=(theirs,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> NvmlReader:
        return self

    def __exit__(self, *_: object) -> None:
        """End the child; one that hangs in the driver cannot be killed and is abandoned."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._child is not None:
            self._child.kill()
            try:
                self._child.wait(_KILL_LIMIT_S)
            except subprocess.TimeoutExpired:
                pass

    def result(self) -> Nvml:
        """Wait for the end of the child or its deadline, and return what it has written."""
        if self._child is None:
            return not_read("no NVIDIA driver is installed", "absent")
        parts = _Parts()
        while not parts.done and (data := self._more()):
            parts.add(data)
        if not parts.done:
            problem, kind = self._why_it_stopped(parts.at)
            parts.driver.update(problem=problem, problem_kind=kind)
        return parts.nvml(LEFT_OUT if self._quick else "")

    def _more(self) -> bytes:
        """Return what the child has written; empty at its end and at the deadline."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._fd, selectors.EVENT_READ)
            ready = selector.select(max(0.0, self._deadline - time.monotonic()))
        return os.read(self._fd, 1 << 16) if ready else b""

    def _why_it_stopped(self, at: str) -> tuple[str, str]:
        assert self._child is not None
        where = f" (it hangs in {at})" if at else ""
        if time.monotonic() >= self._deadline:
            return f"NVML did not answer within {self._deadline_s:g} s{where}", "hang"
        try:
            code = self._child.wait(_KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = 0  # it has closed its pipe but still runs
        died = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"the NVML reader {died}{f' in {at}' if at else ''}", "failed"


class _Parts:
    """What the child has written so far."""

    def __init__(self) -> None:
        self.done, self.at = False, ""
        self.driver: dict[str, Any] = {}
        self.gpus: dict[int, dict[str, Any]] = {}
        self.pairs: list[dict[str, Any]] = []
        self.refused: list[int] = []
        self._lines = Lines()

    def add(self, data: bytes) -> None:
        for part in self._lines.feed(data):
            self._add_part(part)

    def _add_part(self, part: dict[str, Any]) -> None:
        if "at" in part:
            self.at = part["at"]
        elif "driver" in part:
            self.driver.update(part["driver"])
        elif "gpu" in part:  # a later part is more complete
            self.gpus[part["gpu"]["index"]] = part["gpu"]
        elif "pair" in part:
            self.pairs.append(part["pair"])
        elif "refused" in part:
            self.refused.append(part["refused"])
        elif "problem" in part:
            self.driver.update(part)
        else:
            self.done = True

    def nvml(self, left_out: str) -> Nvml:
        told = [fields for _, fields in sorted(self.gpus.items())]
        for kind in ("processes", "graphics_processes"):
            for fields, there in zip(told, named([g.get(kind) for g in told]), strict=True):
                fields[kind] = there
        pairs = tuple(GpuPair(**fields) for fields in self.pairs)
        gpus, refused = tuple(map(_gpu, told)), tuple(self.refused)
        found = Nvml(**self.driver, refused_gpus=refused, gpus=gpus, pairs=pairs)
        why = found.problem or left_out
        _explain_none(found, why)
        for gpu in found.gpus:
            _explain_none(gpu, gpu.lost or why)
        return found


def _gpu(fields: dict[str, Any]) -> Gpu:
    links = fields.get("nvlinks")
    if links is not None:
        fields["nvlinks"] = tuple(NvLink(**link) for link in links)
    return Gpu(**fields)


def _explain_none(thing: Nvml | Gpu, why: str) -> None:
    """Add the reason to every missing fact that has none."""
    for field in dataclasses.fields(thing):
        if why and getattr(thing, field.name) is None:
            thing.missing.setdefault(field.name, why)
