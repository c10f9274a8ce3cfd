"""Reads one GPU with NVML: identity, processes, health, load."""

from __future__ import annotations

import ctypes
from typing import Any

from distrun.probe.nvml_call import Failure, NvmlReading, pci_id, text

_GET_GPU_RECOVERY_ACTION = 230  # older pynvml does not have the name
_MEMORY_V2 = 0x02000028
_UNCORRECTED = 1
_VOLATILE, _AGGREGATE = 0, 1
_SLOWDOWN, _MEMORY_MAX, _GPU_MAX = 1, 2, 3
_MEMORY_TEMPERATURE = 82  # NVML_FI_DEV_MEMORY_TEMP
_RETIREMENT_CAUSES = (0, 1)


def read_identity(gpu: NvmlReading, handle: Any) -> None:
    """Read the GPU's identity and its processes."""
    gpu.ask("nvmlDeviceGetUUID", handle, uuid=text)
    gpu.ask("nvmlDeviceGetPciInfo", handle, pci_id=pci_id)
    gpu.ask("nvmlDeviceGetName", handle, name=text)
    memory = {
        "memory_total_nbytes": lambda found: int(found.total),
        "memory_used_nbytes": lambda found: int(found.used),
    }
    # The first also returns memory reserved by the driver; older drivers only have the second.
    if not gpu.ask("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2, **memory):
        gpu.ask("nvmlDeviceGetMemoryInfo", handle, **memory)
    gpu.take("processes", _computing, gpu, handle)
    drawing = "nvmlDeviceGetGraphicsRunningProcesses"
    gpu.ask(drawing, handle, graphics_processes=_processes)
    gpu.ask("nvmlDeviceGetComputeMode", handle, compute_mode=int)
    gpu.ask("nvmlDeviceGetMigMode", handle, mig_mode=_first, mig_mode_pending=_second)


def read_health(gpu: NvmlReading, handle: Any) -> None:
    """Read the fields about faults of the GPU."""
    gpu.take("recovery_action", _field, gpu, handle, _GET_GPU_RECOVERY_ACTION)
    gpu.ask("nvmlDeviceGetEccMode", handle, ecc_mode=_first, ecc_mode_pending=_second)
    total, uncorrected = "nvmlDeviceGetTotalEccErrors", _UNCORRECTED
    gpu.ask(total, handle, uncorrected, _VOLATILE, ecc_volatile_uncorrected=int)
    gpu.ask(total, handle, uncorrected, _AGGREGATE, ecc_aggregate_uncorrected=int)
    gpu.take("ecc_sram_threshold_exceeded", _sram_threshold_exceeded, gpu, handle)
    gpu.ask(
        "nvmlDeviceGetRemappedRows",
        handle,
        remapped_rows_uncorrected=lambda found: int(found[1]),
        remapped_rows_pending=lambda found: bool(found[2]),
        remapped_rows_failure=lambda found: bool(found[3]),
    )
    _read_heat(gpu, handle)
    # Renamed in driver 535.
    if not gpu.ask("nvmlDeviceGetCurrentClocksEventReasons", handle, clock_events=int):
        gpu.ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle, clock_events=int)


def _read_heat(gpu: NvmlReading, handle: Any) -> None:
    threshold = "nvmlDeviceGetTemperatureThreshold"
    gpu.ask("nvmlDeviceGetTemperature", handle, 0, temperature_c=int)
    gpu.ask(threshold, handle, _SLOWDOWN, temperature_slowdown_c=int)
    gpu.ask(threshold, handle, _GPU_MAX, temperature_max_c=int)
    gpu.ask("nvmlDeviceGetMarginTemperature", handle, temperature_margin_c=int)
    gpu.take("memory_temperature_c", _field, gpu, handle, _MEMORY_TEMPERATURE)
    gpu.ask(threshold, handle, _MEMORY_MAX, memory_temperature_max_c=int)


def read_load(gpu: NvmlReading, handle: Any) -> None:
    """Read the GPU's utilisation."""
    gpu.ask("nvmlDeviceGetUtilizationRates", handle, utilization_percent=lambda u: int(u.gpu))
    gpu.ask("nvmlDeviceGetPowerUsage", handle, power_w=_watt)
    gpu.ask("nvmlDeviceGetEnforcedPowerLimit", handle, power_limit_w=_watt)


def read_rest(gpu: NvmlReading, handle: Any) -> None:
    """Read fields that neither a launch nor a live screen needs."""
    gpu.ask("nvmlDeviceGetCudaComputeCapability", handle, compute_capability=_dotted)
    gpu.ask("nvmlDeviceGetVbiosVersion", handle, vbios_version=text)
    default_limit = "nvmlDeviceGetPowerManagementDefaultLimit"
    gpu.ask(default_limit, handle, power_default_limit_w=_watt)
    gpu.ask("nvmlDeviceGetPersistenceMode", handle, persistence_mode=bool)
    gpu.take("retired_pages", _retired_pages, gpu, handle)
    gpu.ask("nvmlDeviceGetRetiredPagesPendingStatus", handle, retired_pages_pending=bool)
    gpu.ask("nvmlDeviceGetCurrPcieLinkWidth", handle, pcie_width=int)
    gpu.ask("nvmlDeviceGetMaxPcieLinkWidth", handle, pcie_width_max=int)
    gpu.ask("nvmlDeviceGetCurrPcieLinkGeneration", handle, pcie_generation=int)
    gpu.ask("nvmlDeviceGetMaxPcieLinkGeneration", handle, pcie_generation_max=int)
    gpu.ask(
        "nvmlDeviceGetBAR1MemoryInfo",
        handle,
        bar1_total_nbytes=lambda found: int(found.bar1Total),
        bar1_used_nbytes=lambda found: int(found.bar1Used),
    )


def _field(gpu: NvmlReading, handle: Any, field: int) -> int:
    (found,) = gpu.field_values(handle, field)
    if isinstance(found, str):
        raise Failure(found)
    return found


def _sram_threshold_exceeded(gpu: NvmlReading, handle: Any) -> bool:
    import pynvml

    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()  # sets the version
    gpu.call("nvmlDeviceGetSramEccErrorStatus", handle, ctypes.byref(status))
    return bool(status.bThresholdExceeded)


def _retired_pages(gpu: NvmlReading, handle: Any) -> int:
    name = "nvmlDeviceGetRetiredPages"
    return sum(len(gpu.call(name, handle, cause)) for cause in _RETIREMENT_CAUSES)


def _computing(gpu: NvmlReading, handle: Any) -> list[dict[str, Any]]:
    found = gpu.call("nvmlDeviceGetComputeRunningProcesses", handle)
    try:  # under MPS the first list may contain only the server
        found += gpu.call("nvmlDeviceGetMPSComputeRunningProcesses", handle)
    except Failure:
        pass  # GPU or driver without MPS
    return list({process["pid"]: process for process in _processes(found)}.values())


def _processes(found: Any) -> list[dict[str, Any]]:
    return [{"pid": process.pid, "used_nbytes": process.usedGpuMemory} for process in found]


def _first(pair: Any) -> bool:
    return bool(pair[0])


def _second(pair: Any) -> bool:
    return bool(pair[1])


def _watt(milliwatt: int) -> float:
    return milliwatt / 1000


def _dotted(numbers: Any) -> str:
    return ".".join(map(str, numbers))
