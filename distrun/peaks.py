"""Peak FLOP/s of GPUs by name, to compare measured rates with."""

from __future__ import annotations

import re

# Dense, without sparsity, from the data sheets of NVIDIA and AMD: (bfloat16/float16, float32,
# float64). float32 is without TF32, which torch uses only on request. float64 is that of the
# tensor cores where they support it. Devices without a data sheet are left out.
_TFLOPS = {
    "A100": (312, 19.5, 19.5),
    "A10": (125, 31.2, 0.5),
    "A40": (149.7, 37.4, 0.6),
    "L40S": (362, 91.6, 1.4),
    "L40": (181, 90.5, 1.4),
    "L4": (121, 30.3, 0.5),
    "RTX A6000": (154.8, 38.7, 0.6),
    "MI300X": (1307.4, 163.4, 163.4),
    "H100 PCIe": (756, 51, 51),
    "H100 NVL": (835, 60, 60),
    "H100": (989, 67, 67),
    "H200 NVL": (835, 60, 60),
    "H200": (989, 67, 67),
    "GH200": (989, 67, 67),
    "B200": (2250, 75, 37),
    "GB200": (2500, 80, 40),
    "V100": (125, 15.7, 7.8),
    "V100 PCIe": (112, 14, 7),
    "T4": (65, 8.1, 0.25),
    "RTX 4090": (165.2, 82.6, 1.3),
    "RTX 3090": (71, 35.6, 0.56),
}
_COMMON = re.compile(r"nvidia|amd|instinct|tesla|geforce|sxm\d?|pcie|hbm3e?|\d+gb?")
"""Words of a name that do not change the peak. Others, such as Laptop, Ti or MIG, do."""


def peak_flops(name: str, precision: str) -> float | None:
    """Return the peak of a device in FLOP/s, or None if it is not in the table.

    Args:
        name: As `torch.cuda.get_device_name` returns it.
        precision: float32, bfloat16, …
    """
    words = set(re.split(r"[\s-]+", name.lower()))
    for key in sorted(_TFLOPS, key=len, reverse=True):  # H100 PCIe before H100
        own = set(key.lower().split())
        if own <= words and all(map(_COMMON.fullmatch, words - own)):
            half, single, double = _TFLOPS[key]
            by_precision = {"float32": single, "float64": double}
            return by_precision.get(precision, half) * 1e12
    return None
