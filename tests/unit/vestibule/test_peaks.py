"""A rate is compared with the peak of the very device, or with none."""

from __future__ import annotations

import pytest

from distrun.peaks import peak_flops


@pytest.mark.parametrize(
    ("name", "half", "single"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA H200", 989, 67),
        ("NVIDIA H200 NVL", 835, 60),
        ("NVIDIA GH200 480GB", 989, 67),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA A100 80GB PCIe", 312, 19.5),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40", 181, 90.5),
        ("NVIDIA L40S", 362, 91.6),
        ("Tesla V100-SXM2-16GB", 125, 15.7),
        ("Tesla V100-PCIE-16GB", 112, 14),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA RTX A6000", 154.8, 38.7),
        ("AMD Instinct MI300X", 1307.4, 163.4),
    ],
)
def test_float32_is_not_taken_for_tf32(name: str, half: float, single: float) -> None:
    assert peak_flops(name, "bfloat16") == peak_flops(name, "float16") == half * 1e12
    assert peak_flops(name, "float32") == single * 1e12  # torch's default on every GPU


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA H20",
        "NVIDIA H2000",
        "NVIDIA T400 4GB",
        "NVIDIA A4000",
        "NVIDIA RTX 4000 Ada Generation",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM2e",
        "H100 [bold]\n",
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_a_name_that_only_resembles_one_of_the_table_has_no_peak(name: str, precision: str) -> None:
    assert peak_flops(name, precision) is None


def test_a_device_does_no_better_in_more_bits() -> None:
    peaks = [peak_flops("NVIDIA H100 NVL", p) or 0 for p in ("float16", "float32", "float64")]
    assert peaks == sorted(peaks, reverse=True)
    assert min(peaks) > 0
