"""The faults of tests/faults on two hosts behind sshd: as on one, and those of a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts
from tests.faults.cases import CASES, Case
from tests.faults.judge import wrong_with
from tests.faults.run import measure
from tests.faults.running import SSH
from tests.faults.settings import NotHere

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
LAUNCHES = [pytest.param(case, id=case.id) for case in CASES if SSH in case.layouts]


@pytest.mark.ci_cases(3)
@pytest.mark.parametrize("case", LAUNCHES)
def test_a_fault_on_hosts_ends_a_run_with_its_code_and_its_cause_or_the_run_goes_on(
    case: Case, hosts: Hosts, tmp_path: Path
) -> None:
    try:
        measured = measure(case, SSH, "distrun", tmp_path, hosts)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert not wrong_with(case, measured), measured.screen
