"""Which of the tests that launch processes run by default.

Each takes seconds, and there are over a thousand. `pytest` runs some cases of each table, and some
tests of each long file, spread evenly; `pytest --all-cases` runs all, and so does naming a file.
`thorough` marks a test that takes minutes, where a shorter one beside it shows the same on a part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

_LAUNCHING = ("cluster", "others", "process", "recipes")
_CASES = 2
_TESTS = 5
_HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cases", action="store_true", help="run every test that launches")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = [Path(argument.partition("::")[0]) for argument in config.args]
    named = config.getoption("keyword") or any(file.is_file() for file in files)
    if config.getoption("--all-cases") or named:
        return
    kept = [item for item in items if not item.get_closest_marker("thorough")]
    kept = _sample(kept, lambda item: item.nodeid.partition("[")[0], _cases_of)
    kept = _sample(kept, lambda item: item.nodeid.partition("::")[0], _tests_of)
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _sample(
    items: list[pytest.Item],
    group_of: Callable[[pytest.Item], str],
    most_of: Callable[[list[pytest.Item]], int],
) -> list[pytest.Item]:
    """Return the items without some of each group of which there are too many."""
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        groups[group_of(item)].append(item)
    return [item for group in groups.values() for item in _spread(group, most_of(group))]


def _cases_of(table: list[pytest.Item]) -> int:
    marker = table[0].get_closest_marker("default_cases")
    return int(marker.args[0]) if marker else _CASES


def _tests_of(file: list[pytest.Item]) -> int:
    return max(_TESTS, *(_cases_of([item]) for item in file))


def _spread(group: list[pytest.Item], most: int) -> list[pytest.Item]:
    launches = group[0].path.relative_to(_HERE).parts[0] in _LAUNCHING
    if not launches or len(group) <= most:
        return group
    if most == 1:
        return group[:1]
    return [group[round(i * (len(group) - 1) / (most - 1))] for i in range(most)]
