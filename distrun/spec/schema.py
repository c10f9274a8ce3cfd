"""The JSON Schema of `[tool.distrun]`, for editors."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from distrun.spec.job import Settings


def config_schema() -> dict[str, Any]:
    """Return the schema, with the string below each field of `Settings` as its description."""
    schema = Settings.model_json_schema(by_alias=True)
    for name, text in field_docstrings(Settings).items():
        schema["properties"][name.replace("_", "-")]["description"] = text
    schema["properties"]["nodes"]["default"] = 1
    return schema


def field_docstrings(model: type) -> dict[str, str]:
    """Return the string below each field of a class that has one."""
    # pydantic's use_attribute_docstrings does the same on every start, for 20 ms.
    (tree,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = str(text.value.value)
    return found
