"""Which cases of long tables run by default.

A case that launches processes takes seconds. Of a test with many of them, `pytest` runs some,
spread evenly over its table, and `pytest --all-cases` all. `thorough` marks a test that runs only
then, because a shorter one beside it shows the same on a part.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

_LAUNCHING = ("cluster", "others", "process", "recipes")
_CASES = 3
_HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cases", action="store_true", help="run every case of every table")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = any("::" in argument for argument in config.args)
    if config.getoption("--all-cases") or named:
        return
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tables[item.nodeid.partition("[")[0]].append(item)
    kept = {item for table in tables.values() for item in _spread(_brief(table))}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _brief(table: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in table if not item.get_closest_marker("thorough")]


def _spread(table: list[pytest.Item]) -> list[pytest.Item]:
    """Return the cases of one test that run by default."""
    if not table:
        return []
    marker = table[0].get_closest_marker("default_cases")
    room = table[0].path.relative_to(_HERE).parts[0]
    most = marker.args[0] if marker else _CASES if room in _LAUNCHING else len(table)
    if len(table) <= most or most == 1:
        return table[:most]
    return [table[round(i * (len(table) - 1) / (most - 1))] for i in range(most)]
