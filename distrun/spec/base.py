"""What every model of `spec` is made of: its base class, and the error of its validators."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Frozen(BaseModel):
    """An immutable model without extra fields; keys may be written in kebab-case."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, alias_generator=_kebab
    )


class Refused(ValueError):
    """A value that a validator refuses; pydantic passes it on as the `error` of its context.

    Args:
        message: A sentence that holds the value.
        hint: What to write instead; "": what the setting's own hint says.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
