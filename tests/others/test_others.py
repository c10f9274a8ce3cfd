"""Scripts in the style that people copy come out the same under distrun as under torchrun.

Each trains a few steps on two ranks and writes into a directory. Exit codes, the losses that
each rank prints and the files must be those of torchrun, for warm and cold ranks, on one node
and on two. `DISTRUN_TEST_TIMES=50 pytest tests/others` launches each of them 50 times.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from pathlib import Path

import pytest

from tests.others.launches import Layout, Outcome, Script, launched

TIMES = int(os.environ.get("DISTRUN_TEST_TIMES", "2"))
"""How often distrun launches each script, in turn through its ways."""
TRIES = 10
"""torchrun's own gloo jobs abort at their end: on a busy machine one in five."""

SCRIPTS = [
    Script("ddp_functions"),
    Script("ddp_short"),
    Script("ddp_checkpoint"),
    Script("ddp_snapshot", calls=(("out", "2"), ("out", "4"))),
    Script("fsdp2"),
    Script("tensor_parallel"),
    Script("loader_workers"),
    Script("cnn", calls=(("--save-model", "out"),)),
    Script("accumulation"),
    Script("files_per_rank"),
    Script("spawns_ranks", layouts=(Layout(1, 1),), starts_ranks=True),
    Script("subcommands", calls=(("--seed", "3", "train", "out", "--lr", ".2", "--run", "exp7"),)),
    Script(
        "subcommands",
        calls=(("evaluate", "out", "--log", "a b", "", "--n", "3"),),
        exit_code=1,
    ),
    Script("progress_bar", needs="tqdm"),
    Script("tensorboard_writer", needs="tensorboard"),
    Script(
        "hydra_app",
        calls=(("optimizer=adam", "hydra.run.dir=out"),),
        needs="hydra",
        changing=("hydra_app.log",),
    ),
    Script("accelerate_loop", needs="accelerate"),
    Script("lightning_trainer", needs="lightning"),
    Script("transformers_trainer", needs="transformers"),
]


def name_of(script: Script) -> str:
    return script.name if script.exit_code == 0 else f"{script.name} that fails"


def ways(script: Script) -> list[tuple[str, Layout]]:
    """Return the ways to launch a script. Two of them show both kinds of ranks and both layouts:
    half of the scripts begin with one pair, half with the other."""
    first, last = script.layouts[0], script.layouts[-1]
    pairs = [("warm", first), ("cold", last), ("warm", last), ("cold", first)]
    return pairs if SCRIPTS.index(script) % 2 else pairs[2:] + pairs[:2]


@pytest.mark.long
@pytest.mark.timeout(240 * (TIMES + 1))
@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_script_comes_out_as_under_torchrun(script: Script, tmp_path: Path) -> None:
    if script.needs and importlib.util.find_spec(script.needs) is None:
        pytest.skip(f"{script.needs} is not installed: pip install -e .[others]")
    expected = under_torchrun(script, script.layouts[0], tmp_path)
    assert script.exit_code or (any(expected.losses.values()) and expected.files)
    if TIMES > 2:
        assert under_torchrun(script, script.layouts[-1], tmp_path / "last") == expected
    for number, (by, layout) in zip(range(TIMES), itertools.cycle(ways(script)), strict=False):
        directory = tmp_path / f"{number}-{by}-{layout}"
        outcome = launched(script, by, layout, directory)
        if (
            script.starts_ranks
            and b"terminated with signal SIGABRT" in (directory / "screen").read_bytes()
        ):
            outcome = launched(script, by, layout, directory / "again")
        assert outcome == expected, directory


def under_torchrun(script: Script, layout: Layout, directory: Path) -> Outcome:
    """Return what comes of a script when torchrun ends as it should."""
    for number in range(TRIES):
        place = directory / f"torchrun-{layout}-{number}"
        outcome = launched(script, "torchrun", layout, place)
        if set(outcome.exit_codes) == {script.exit_code}:
            return outcome
    printed = (place / "screen").read_text(errors="replace")
    pytest.fail(f"torchrun failed {TRIES} times: {place}\n{printed}")
