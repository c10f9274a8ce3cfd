"""What a GPU can do at most, by its name: what a measured rate is compared with."""

from __future__ import annotations

_TFLOPS = {  # dense, without sparsity, from NVIDIA's data sheets: (bfloat16/float16, TF32, float64)
    "A100": (312, 156, 19.5),
    "A10G": (125, 35, 0.5),
    "A10": (125, 62.5, 0.5),
    "A40": (149.7, 74.8, 0.6),
    "L40S": (362, 183, 1.4),
    "L4": (121, 60, 0.5),
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835, 417, 60),
    "H100": (989, 494, 67),
    "H200": (989, 494, 67),
    "GH200": (989, 494, 67),
    "B200": (2250, 1100, 37),
    "GB200": (2500, 1250, 40),
    "V100": (125, 15.7, 7.8),
    "T4": (65, 8.1, 0.25),
    "4090": (165.2, 82.6, 1.3),
    "3090": (71, 35.6, 0.56),
}


def peak_flops(name: str, precision: str) -> float | None:
    """Return the peak of a device in FLOP/s, None if it is not in the table.

    Args:
        name: As `torch.cuda.get_device_name` has it.
        precision: float32 (which torch runs as TF32 where that is allowed), bfloat16, …
    """
    known = [key for key in _TFLOPS if key in name]
    if not known:
        return None
    half, single, double = _TFLOPS[max(known, key=len)]
    by_precision = {"float32": single, "float64": double}
    return by_precision.get(precision, half) * 1e12
