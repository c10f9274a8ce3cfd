"""Which of the tests that launch processes run.

Each takes seconds, and there are over a thousand. `pytest` runs some cases of each table, and some
tests of each long file, spread evenly, and none of those that need sshd, Slurm or podman.
`pytest --ci` runs more of each, and those too; `pytest --all-cases` runs all, and so does naming a
file. `long` marks tests of 15 s and more, which run with `--ci`; `thorough` those of minutes, where
a shorter one shows the same on a part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

_LAUNCHING = ("cluster", "others", "process", "recipes")
_SERVICES = "cluster"
"""The tests here start services, most of them as root."""
_HERE = Path(__file__).parent


class Most(NamedTuple):
    """How many tests run."""

    cases: int
    """Of each table."""
    tests: int
    """Of each file."""


_BY_DEFAULT = Most(cases=1, tests=2)
_IN_CI = Most(cases=2, tests=5)
_SHARE = 4
"""Of a table that has more cases in CI, one in so many runs by default."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-cases", action="store_true", help="run every test that launches")
    parser.addoption("--ci", action="store_true", help="run more, and those that need services")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = [Path(argument.partition("::")[0]) for argument in config.args]
    named = config.getoption("keyword") or any(file.is_file() for file in files)
    if config.getoption("--all-cases") or named:
        return
    kept = [item for item in items if not item.get_closest_marker("thorough")]
    most = _IN_CI if config.getoption("--ci") else _BY_DEFAULT
    if most is _BY_DEFAULT:
        kept = [i for i in kept if _room_of(i) != _SERVICES and not i.get_closest_marker("long")]
    kept = _sample(kept, lambda item: item.nodeid.partition("[")[0], partial(_cases_of, most))
    kept = _sample(kept, lambda item: item.nodeid.partition("::")[0], partial(_tests_of, most))
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


def _cases_of(most: Most, table: list[pytest.Item]) -> int:
    marker = table[0].get_closest_marker("ci_cases")
    share = 1 if most is _IN_CI else _SHARE
    return max(most.cases, int(marker.args[0]) // share) if marker else most.cases


def _tests_of(most: Most, file: list[pytest.Item]) -> int:
    return max(most.tests, *(_cases_of(most, [item]) for item in file))


def _room_of(item: pytest.Item) -> str:
    return item.path.relative_to(_HERE).parts[0]


def _spread(group: list[pytest.Item], most: int) -> list[pytest.Item]:
    if _room_of(group[0]) not in _LAUNCHING or len(group) <= most:
        return group
    if most == 1:
        return group[:1]
    return [group[round(i * (len(group) - 1) / (most - 1))] for i in range(most)]
