"""Calls pynvml, for the child process only, and converts its errors.

pynvml's exceptions do not leave this module: an NVMLError can be neither hashed nor compared, and
its mismatch error is not an NVMLError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distrun.probe.reading import Reading, Unread

_VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""valueType -> the member of a field value's union."""
_PREFIX = "NVMLError_"


class Failure(Unread):
    """NVML or pynvml refused a call; the text is the error's name, such as `NotSupported`."""


class NvmlReading(Reading):
    """Reads NVML's facts of one object.

    Args:
        subject: The object, such as `GPU 3`.
        announce: Called with each call before it is made, because it may hang.
    """

    def __init__(self, subject: str, announce: Callable[[str], None]) -> None:
        super().__init__()
        self._subject = subject
        self._announce = announce

    def call(self, name: str, /, *arguments: Any) -> Any:
        """Call a function of pynvml.

        Raises:
            Failure: It failed, or this driver or pynvml does not have it.
        """
        import pynvml

        self._announce(f"{name} of {self._subject}")
        function = getattr(pynvml, name, None)
        if function is None:
            raise Failure("FunctionNotFound")
        try:
            return function(*arguments)
        except pynvml.NVMLError as error:
            raise self._failure(type(error).__name__, int(error.value)) from None
        except pynvml.NVMLLibraryMismatchError:
            raise Failure("LibraryMismatch") from None
        except UnicodeDecodeError:  # pynvml decodes text that a broken infoROM may garble
            raise Failure("CorruptedText") from None

    def _failure(self, name: str, code: int) -> Failure:
        if name == f"{_PREFIX}GpuIsLost":
            self.values["lost"] = "GpuIsLost"
        known = name.startswith(_PREFIX)
        return Failure(name.removeprefix(_PREFIX) if known else f"NVML error {code}")

    def ask(self, name: str, /, *arguments: Any, **fields: Callable[[Any], Any]) -> bool:
        """Call a function for one or more fields, each with a converter of the answer.

        Returns:
            Whether it answered.
        """
        try:
            found = self.call(name, *arguments)
        except Failure as failure:
            self.missing.update(dict.fromkeys(fields, str(failure)))
            return False
        for field, convert in fields.items():
            self.values[field] = convert(found)
            self.missing.pop(field, None)
        return True

    def field_values(self, handle: Any, *ids: int, scope: int = 0) -> list[int | str]:
        """Return NVML's field values; for a field without value the name of the error.

        Raises:
            Failure: NVML returns none of them.
        """
        found = self.call("nvmlDeviceGetFieldValues", handle, [(id_, scope) for id_ in ids])
        return [self._field_value(value) for value in found]

    def _field_value(self, value: Any) -> int | str:
        import pynvml

        if value.nvmlReturn != 0:
            name = type(pynvml.NVMLError(value.nvmlReturn)).__name__
            return str(self._failure(name, value.nvmlReturn))
        if value.valueType >= len(_VALUE_TYPES):
            return f"value type {value.valueType}"
        return int(getattr(value.value, _VALUE_TYPES[value.valueType]))


def text(value: bytes | str) -> str:
    """Return text that pynvml returns as bytes or str, depending on version and call."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def pci_id(info: Any) -> str:
    """Return a device's PCI address in the kernel's form: `0000:3b:00.0`."""
    domain, _, rest = text(info.busId).lower().partition(":")
    return f"{domain[-4:] if domain[:-4].strip('0') == '' else domain}:{rest}" if rest else domain
