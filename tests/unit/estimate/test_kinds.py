"""Kinds of GPUs: one table, each figure with a source."""

from __future__ import annotations

import pytest

from distrun.errors import UsageError
from distrun.estimate.kinds import KINDS, cpu, kind_of, of_device


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_is_whole_and_says_where_it_comes_from(kind: object) -> None:
    values = vars(kind)
    assert "data sheet" in values.pop("source")
    assert not [name for name, value in values.items() if not value and name != "fitted"]


@pytest.mark.parametrize(
    ("name", "kind"), [("H100", "h100"), (" a100 ", "a100-80"), ("rtx4090", "4090")]
)
def test_a_kind_is_found_by_how_people_write_it(name: str, kind: str) -> None:
    assert kind_of(name, {}).name == kind


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="h10") as error:
        kind_of("h10", {})
    assert "'h100'" in error.value.hint


def test_an_own_kind_comes_before_one_of_the_table() -> None:
    own = cpu(4, 1 << 30, 1)
    assert kind_of("h100", {"h100": own}) is own


def test_ranks_share_the_cores_and_the_memory_of_a_machine() -> None:
    one, four = cpu(8, 1 << 34, 1), cpu(8, 1 << 34, 4)
    assert four.peak("float32") == one.peak("float32") / 4
    assert four.memory_nbytes == one.memory_nbytes // 4


@pytest.mark.parametrize(
    ("device", "mib", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80"),
        ("NVIDIA GeForce RTX 4090", 24564, "4090"),
        ("NVIDIA RTX A6000", 49140, "a6000"),
        ("AMD Instinct MI300X", 196592, "mi300x"),
        ("NVIDIA H100 PCIe", 81559, None),
        ("NVIDIA GeForce RTX 2060", 6144, None),
        ("", None, None),
    ],
)
def test_the_kind_of_a_device_is_told_by_its_name_and_memory(
    device: str, mib: int | None, kind: str | None
) -> None:
    found = of_device(device, None if mib is None else mib << 20)
    assert (found.name if found else None) == kind


@pytest.mark.parametrize(
    ("name", "hint"), [("h10", "did you mean 'h100'? --kinds"), ("", "; --kinds")]
)
def test_the_hint_for_an_unknown_kind_reads_as_sentences(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        kind_of(name, {})
    assert hint in refused.value.hint
