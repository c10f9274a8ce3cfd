"""The table `[tool.distrun.check]`: limits of rules by name, and rules to leave out."""

from __future__ import annotations

import dataclasses
import json
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
    """`ignore`, and any limit: which there are, the rules say, and `limits_of` holds."""

    model_config = ConfigDict(extra="allow", frozen=True)

    ignore: tuple[str, ...] = ()
    """Ids of rules to leave out."""

    @property
    def limits(self) -> dict[str, Any]:
        """Limits that differ from the default, as they were written."""
        return {name.replace("-", "_"): value for name, value in (self.model_extra or {}).items()}


Check = Annotated[
    Annotated[StrictBool, Tag("<switch>")] | Annotated[CheckTable, Tag("<table>")],
    Discriminator(lambda v: "<table>" if isinstance(v, (dict, CheckTable)) else "<switch>"),
]
"""Whether to check, or by what limits; told apart so that a message speaks of one of them."""


def limits_of(check: bool | CheckTable, limits_type: type[_Limits]) -> _Limits:
    """Return the limits of a table over the defaults.

    Args:
        check: The table, or whether there is a check at all.
        limits_type: The dataclass of all limits, each with a default.

    Raises:
        UsageError: There is no such limit, or its value is of another type.
    """
    given = {} if isinstance(check, bool) else check.limits
    known = [field.name for field in dataclasses.fields(limits_type)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, [*known, "ignore"])
            raise UsageError(f"unknown key {name!r} in {_WHERE}", hint)
    if not given:
        return limits_type()  # pydantic takes 10 ms to learn the dataclass
    try:
        text = json.dumps(given, default=str)  # as JSON, a list will do for a tuple
        return TypeAdapter(limits_type).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{first['loc'][0]} {first['input']!r} in {_WHERE} is refused: {first['msg']}",
            "a number, in the unit that the name ends with",
        ) from None
