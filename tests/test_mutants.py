"""The table of `python -m tests.mutants` fits the code; nothing of it is run here."""

from __future__ import annotations

import ast
import shutil
from collections import Counter
from pathlib import Path
from typing import get_args

from tests.mutants.__main__ import PATCHES
from tests.mutants.patch import Kind, PatchError
from tests.test_architecture import ARROWS, ROOT


def test_every_patch_still_applies_to_its_file_and_leaves_it_python(tmp_path: Path) -> None:
    wrong = []
    for patch in PATCHES:
        tree = tmp_path / "distrun" / patch.file
        tree.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy(ROOT / "distrun" / patch.file, tree)
            patch.apply(tmp_path)
            ast.parse(tree.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, PatchError) as error:
            wrong.append(f"{patch.file}: {error}")
    assert not wrong, "mend the table in tests/mutants, or take the patch out"


def test_every_patch_names_tests_that_are_there_and_is_planted_once() -> None:
    named = {test for patch in PATCHES for test in patch.tests}
    assert not [test for test in named if not (ROOT / "tests" / test).is_file()]
    assert all(patch.tests for patch in PATCHES)
    places = Counter((patch.file, patch.old) for patch in PATCHES)
    assert max(places.values()) == 1


def test_the_bugs_are_of_every_kind_and_in_every_room() -> None:
    assert {patch.kind for patch in PATCHES} == set(get_args(Kind))
    rooms = {room.partition(".")[0] for room in ARROWS}  # estimate.tracer is in estimate
    assert {patch.room for patch in PATCHES} == {"", *rooms}
    assert len(PATCHES) >= 40
