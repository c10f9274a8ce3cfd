"""Xids from the kernel log: the device, and the programs that read it where it is shut."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from distrun.probe.kernel_log import read_xids
from distrun.probe.reading import Unread
from tests.unit.probe.tree import grow

FELL_OFF = "NVRM: Xid (PCI:0000:3B:00): 79, pid='<unknown>', GPU has fallen off the bus."
DRIVER = {"proc/driver/nvidia/version": "NVRM version: 580.159"}


def kmsg(age_s: float, message: str) -> str:
    """Return a record of /dev/kmsg that was written some time ago."""
    return f"6,339,{int((time.monotonic() - age_s) * 1e6)},-;{message}\n SUBSYSTEM=pci\n"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, for stand-ins of journalctl and dmesg."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, prints: str = "", code: int = 0, says: str = "") -> None:
    """Put a program there that prints, complains and ends."""
    file = folder / name
    shown = f"while read -r line; do echo \"$line\"; done <<'E'\n{prints}\nE"
    complaint = f"echo {says!r} >&2" if says else ""
    file.write_text(f"#!/bin/sh\n{shown}\n{complaint}\nexit {code}\n")
    file.chmod(0o755)


def test_xids_of_the_last_two_hours_are_told_with_gpu_code_and_age(tmp_path: Path) -> None:
    records = [
        kmsg(7300, FELL_OFF.replace("79", "48")),
        kmsg(100, "nvidia: module license 'NVIDIA' taints kernel."),
        kmsg(60, FELL_OFF),
        kmsg(5, "NVRM: Xid (0000:86:00.0): 63, Row remapping event \u2014 " + "x" * 500),
    ]
    first, second = read_xids(grow(tmp_path, {"dev/kmsg": "".join(records)}))
    assert (first.code, first.pci_id, first.message) == (79, "0000:3b:00.0", FELL_OFF)
    assert 60 <= first.age_s < 90
    assert (second.code, second.pci_id) == (63, "0000:86:00.0")
    assert len(second.message) == 200


def test_a_log_without_an_xid_has_none(tmp_path: Path) -> None:
    quiet = kmsg(5, "eth0: link up") + "not a record at all\n\x80\n"
    assert read_xids(grow(tmp_path, {"dev/kmsg": quiet, **DRIVER})) == ()


def test_without_an_nvidia_driver_nobody_writes_xids(tmp_path: Path, programs: Path) -> None:
    assert read_xids(tmp_path) == ()


def test_where_the_device_is_shut_the_journal_is_read(tmp_path: Path, programs: Path) -> None:
    said = f"{time.time() - 30:.6f} node1 kernel: {FELL_OFF}"
    program(programs, "journalctl", said)
    (xid,) = read_xids(grow(tmp_path, DRIVER))
    assert (xid.code, xid.message) == (79, FELL_OFF)
    assert 30 <= xid.age_s < 60


def test_an_empty_journal_is_no_pass_and_dmesg_is_asked(tmp_path: Path, programs: Path) -> None:
    program(programs, "journalctl", says="Hint: You are currently not seeing messages")
    program(programs, "dmesg", f"[{time.monotonic() - 9:12.6f}] {FELL_OFF}")
    (xid,) = read_xids(grow(tmp_path, DRIVER))
    assert xid.code == 79
    assert 9 <= xid.age_s < 40


def test_a_log_that_nobody_may_read_is_missing_with_every_reason(
    tmp_path: Path, programs: Path
) -> None:
    program(programs, "dmesg", code=1, says="dmesg: read kernel buffer failed: not permitted")
    with pytest.raises(Unread) as refused:
        read_xids(grow(tmp_path, DRIVER))
    said = str(refused.value)
    assert said.startswith("the kernel log cannot be read: ")
    assert "dev/kmsg: No such file or directory" in said
    assert "journalctl: No such file or directory" in said
    assert "read kernel buffer failed: not permitted" in said


def test_a_program_that_hangs_is_given_up(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distrun.probe.kernel_log._COMMAND_LIMIT_S", 0.2)
    os.mkfifo(tmp_path / "fifo")
    (programs / "journalctl").write_text(f"#!/bin/sh\nread -r line < {tmp_path}/fifo\n")
    (programs / "journalctl").chmod(0o755)
    with pytest.raises(Unread, match=r"journalctl did not answer within 0\.2 s"):
        read_xids(grow(tmp_path, DRIVER))


def test_the_device_of_this_machine_ends(tmp_path: Path) -> None:
    began = time.monotonic()
    assert isinstance(read_xids(), tuple)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9).",
            (94, "0000:01:00.0", "GPU-I:05", False),
        ),
        (
            "NVRM: Xid (PCI:0000:3b:00 GPU-I:01 GPU-CI:02): 95, pid=9, Uncontained: LTC TAG",
            (95, "0000:3b:00.0", "GPU-I:01 GPU-CI:02", False),
        ),
        (
            "nvidia-nvswitch1: SXid (PCI:0000:84:00.0): 12028, Data {0x000001c0}",
            (12028, "0000:84:00.0", "", True),
        ),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:c6:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
            (20034, "0000:c6:00.0", "", True),
        ),
    ],
)
def test_a_mig_gpus_part_and_an_nvswitch_are_told(
    tmp_path: Path, line: str, found: tuple[int, str, str, bool]
) -> None:
    (xid,) = read_xids(grow(tmp_path, {"dev/kmsg": kmsg(1, line)}))
    assert (xid.code, xid.pci_id, xid.part, xid.of_switch) == found
