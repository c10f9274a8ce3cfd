"""The JSON Schema of `[tool.distrun]`, for editors."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from distrun.spec.job import Settings


def config_schema() -> dict[str, Any]:
    """Return the schema; the docstring of each field of `Settings` is its description."""
    schema = Settings.model_json_schema(by_alias=True)
    for name, text in field_docstrings(Settings).items():
        schema["properties"][name.replace("_", "-")]["description"] = text
    schema["properties"]["nodes"]["default"] = 1
    return schema


def field_docstrings(model: type) -> dict[str, str]:
    """Return the docstrings of a class's fields."""
    # pydantic's use_attribute_docstrings does the same, but takes 20 ms on every start.
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
