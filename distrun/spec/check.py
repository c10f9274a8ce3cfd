"""The table `[tool.distrun.check]`: limits of rules by name, and rules to leave out."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    StrictBool,
    Tag,
    TypeAdapter,
    ValidationError,
)

from distrun.errors import UsageError, did_you_mean

_Limits = TypeVar("_Limits")
_WHERE = "[tool.distrun.check]"


class CheckTable(BaseModel):
    """`ignore`, and any limit by its name, as docs/check.md names them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    ignore: tuple[str, ...] = ()
    """Ids of rules to leave out."""

    @property
    def limits(self) -> dict[str, Any]:
        """The limits in the table, as written."""
        return {name.replace("-", "_"): value for name, value in (self.model_extra or {}).items()}


Check = Annotated[
    Annotated[StrictBool, Tag("<switch>")] | Annotated[CheckTable, Tag("<table>")],
    Discriminator(lambda v: "<table>" if isinstance(v, (dict, CheckTable)) else "<switch>"),
]
"""Whether to check, or a table of limits; a tagged union, so that an error names one member."""


def limits_of(check: bool | CheckTable, limits_type: type[_Limits]) -> _Limits:
    """Return the limits of a table, with defaults for the rest.

    Args:
        check: The table, or whether to check.
        limits_type: The dataclass of all limits, each with a default.

    Raises:
        UsageError: There is no such limit, or its value has another type.
    """
    given = {} if isinstance(check, bool) else check.limits
    known = [field.name for field in dataclasses.fields(limits_type)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, [*known, "ignore"])
            raise UsageError(f"unknown key {name!r} in {_WHERE}", hint)
    if not given:
        return limits_type()  # pydantic takes 10 ms to build the validator
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            message = f"{name} {value} in {_WHERE} is no limit"
            raise UsageError(message, "`ignore` leaves a rule out")
    try:
        # as JSON, because there a list is accepted for a tuple
        text = json.dumps(given, default=str)
        return TypeAdapter(limits_type).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{first['loc'][0]} {first['input']!r} in {_WHERE} is refused: {first['msg']}",
            "a list, as docs/check.md has it"
            if first["type"] in ("tuple_type", "list_type")
            else "a number, in the unit that the name ends with",
        ) from None
