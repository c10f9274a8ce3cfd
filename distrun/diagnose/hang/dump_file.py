"""Reads the file that torch's flight recorder has written: JSON, or a pickle."""

from __future__ import annotations

import json

from distrun.diagnose.hang.unpickle import UnpickleError, unpickle
from distrun.errors import UsageError

MAX_NBYTES = 64 << 20
"""A dump of 2000 collectives with their stacks takes a tenth of it."""


def parsed(data: bytes, name: str) -> dict[str, object]:
    """Return the dump in a file, for `record_of`.

    Args:
        data: The file.
        name: Its name, for the message.

    Raises:
        UsageError: It is neither the JSON nor the pickle of a dump.
    """
    try:
        found = unpickle(data) if data[:1] == b"\x80" else json.loads(data)
    except (UnpickleError, RecursionError, ValueError) as error:
        why = str(error) if isinstance(error, UnpickleError) else "it is neither JSON nor a pickle"
        raise UsageError(f"{name} is not a dump of torch's flight recorder: {why}") from None
    if type(found) is not dict or not {"entries", "trace", "pg_status"} & found.keys():
        raise UsageError(
            f"{name} is not a dump of torch's flight recorder: it holds no entries",
            "such files are written where TORCH_FR_DUMP_TEMP_FILE says",
        )
    return found
