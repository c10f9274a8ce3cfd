"""What cannot train is told in one sentence, with what would, before any process group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from distrun.train.config import parse
from tests.recipes.launching import RECIPES, run_python, torchrun

TIED = "embedding and head are one matrix"
REFUSED: list[tuple[str, int, str, str]] = [
    ("dp", 2, "", "DataParallel is one process, not 2: use ddp.py for more"),
    ("ddp", 7, "", "--batch-size 240 does not divide among 7 ranks: --batch-size 238 or 245"),
    ("single", 2, "", "data 1 needs 1 rank, not 2"),
    ("single", 1, "--size medium", "--size 'medium' is none of tiny, small, 124M"),
    ("single", 1, "--batch-size 10 --accumulate 4", "--batch-size 8 or 12 would"),
    ("ddp_gpt", 3, "", "a micro-batch of 16 does not divide among 3 ranks: 2 or 4 ranks would"),
    ("ddp_gpt", 2, "--static-graph --accumulate 2", "without all_reduce differ: --accumulate 1"),
    ("zero1", 2, "--batch-size 6 --accumulate 2", "a micro-batch of 3 does not divide among 2"),
    ("fsdp", 4, "--replicate 3", "replicate 3 needs a multiple of 3 ranks, such as 3, not 4"),
    ("tp", 3, "", "heads 4 does not divide among 3 tp ranks: 2 or 4 tp ranks would"),
    ("tp", 4, "--seq-len 130", "--seq-len 130 does not divide among 4 tp ranks"),
    ("tp", 2, "--tied", TIED),
    ("tp", 2, "--size 124M", TIED),
    ("tp", 2, "--size 124M", "two ways; --no-tied makes two"),
    ("tp", 8, "--size 1.5B", "heads 25 does not divide among 8 tp ranks: 1 or 5 tp ranks would"),
    ("fsdp_tp", 3, "", "tp 2 needs a multiple of 2 ranks, such as 4, not 3"),
    ("fsdp_tp", 6, "", "a micro-batch of 16 does not divide among 3 shard ranks"),
    ("pp", 3, "", "pp 2 needs a multiple of 2 ranks"),
    ("pp", 3, "--pp 3", "layers 4 does not divide among 3 stages: 2 or 4 stages would"),
    ("pp", 4, "--pp 4 --flow interleaved", "layers 4 does not divide among 8 stages"),
    ("pp", 2, "--accumulate 1", "--accumulate 1 is below the 2 stages"),
    ("pp", 2, "--tied", TIED),
    ("pp", 2, "--flow interleaved --accumulate 5 --batch-size 20", "2 equal rounds"),
    ("pp", 2, "--sample 10", "a pipeline does not write; single.py loads its checkpoint"),
    ("pp_fsdp_tp", 4, "--tp 4", "pp 2 x tp 4 needs a multiple of 8 ranks, such as 8, not 4"),
    ("pp_fsdp_tp", 8, "--seq-len 129", "--seq-len 129 does not divide among 2 tp ranks"),
    ("cp", 2, "--seq-len 130", "--seq-len 130 does not divide among 4 pieces"),
    ("cp", 2, "--attention torch", "context_parallel runs on GPUs alone"),
    ("cp", 2, "--sample 1", "a cut window does not write"),
    ("moe", 3, "", "--experts 4 does not divide among 3 ranks: --experts 3 or 6 would"),
    ("moe", 2, "--capacity-factor 0.01", "of a window, so that none takes any: at least 0.0158"),
    ("moe", 2, "--experts 1", "--experts must be at least 2, not 1"),
    ("ddp_gpt", 2, "--data nowhere", "--data 'nowhere' is no folder"),
]


@pytest.mark.parametrize(("name", "world_size", "words", "said"), REFUSED)
def test_what_does_not_fit_is_refused_by_its_values(
    recipe: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    world_size: int,
    words: str,
    said: str,
) -> None:
    module = recipe(name)
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    checks = [module.axes, *([module.require_text] if hasattr(module, "require_text") else [])]
    with pytest.raises(SystemExit) as ended:
        parse(module.Config, *checks, words=words.split())
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1], error
    assert len(error) == 2  # the usage, and one sentence


def test_data_parallel_on_two_gpus_refuses_what_its_threads_would_run_in_float16(
    recipe: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = recipe("dp")
    words = ["--precision", "bfloat16"]
    for gpus in (0, 1):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        parse(module.Config, module.axes, words=words)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    parse(module.Config, module.axes, words=["--precision", "float16"])
    with pytest.raises(SystemExit) as ended:
        parse(module.Config, module.axes, words=words)
    assert ended.value.code == 2
    (_, error) = capsys.readouterr().err.strip().splitlines()
    assert "--precision bfloat16 would be float16 in DataParallel's threads" in error
    assert error.endswith("2 GPUs: --precision float16, or ddp.py")


def test_ranks_that_do_not_fit_are_told_once_and_nothing_hangs(tmp_path: Path) -> None:
    run = torchrun(tmp_path, 3, RECIPES / "tp.py")
    assert run.code != 0
    assert (run.out + run.err).count("heads 4 does not divide among 3 tp ranks") == 1
    assert "Traceback (most recent call last):\n  File" not in run.out


REFUSED_ALONE = """
import os, runpy, sys
sys.path.insert(0, {recipes!r})
sys.argv[1:] = ["--data", "nowhere"] if os.environ["RANK"] == "1" else []
runpy.run_path({recipes!r} + "/ddp_gpt.py", run_name="__main__")
"""


@pytest.mark.parametrize("alone", [False, True], ids=["all ranks", "rank 1 alone"])
def test_the_rank_that_is_named_says_why_it_was_refused_under_quiet_too(
    tmp_path: Path, alone: bool
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "text.bin").write_bytes(bytes(1001))
    (tmp_path / "alone.py").write_text(REFUSED_ALONE.format(recipes=str(RECIPES)))
    words = (tmp_path / "alone.py",) if alone else (RECIPES / "ddp_gpt.py", "--data", "odd")
    launch = ("-m", "distrun", "launch", "--quiet", "--no-check", "--nproc-per-node", 2)
    run = run_python(tmp_path, *launch, *words)
    assert run.code == 2
    said = "'nowhere' is no folder" if alone else "'odd/text.bin' has 1001 bytes, no multiple of 2"
    assert said in run.err
    assert f"FAILED: rank {int(alone)} on node0 failed first: exited with 2" in run.err
    assert "  the last it printed:" in run.err


def test_a_run_that_diverges_ends_with_the_step(tmp_path: Path) -> None:
    run = run_python(tmp_path, RECIPES / "single.py", "--lr", "1e30", "--steps", 20)
    assert run.code == 1
    last = run.err.strip().splitlines()[-1]
    assert "DivergedError: the gradient norm is nan in step 2; no checkpoint was saved" in last


def test_a_diverging_loss_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    words = ["--checkpoint-dir", "kept", "--checkpoint-every", 1, "--warmup-steps", 0]
    run = run_python(tmp_path, RECIPES / "single.py", "--lr", "1e30", "--steps", 20, *words)
    assert run.code == 1
    assert "the last good checkpoint is kept/step-0000000" in run.err
