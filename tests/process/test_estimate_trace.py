"""`distrun estimate --trace`: what a child does for real, and what is told where it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distrun.errors import DistrunError, UsageError
from distrun.estimate.kinds import KINDS
from distrun.estimate.network import Cluster
from distrun.estimate.step_time import Pace, step_time
from distrun.estimate.trace import trace
from distrun.estimate.work import Collective
from tests.test_architecture import ROOT

SCRIPTS = ROOT / "tests" / "scenarios" / "estimate"
LOOP = """
import torch
from torch import nn
model = nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
for step in range({steps}):
    x = torch.ones(4, {width})
    {line}
    model(x).sum().backward()
    optimizer.step()
"""


TWO_AXES = """
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
dist.init_process_group("nccl")
mesh = dist.device_mesh.init_device_mesh("cuda", (4, 2), mesh_dim_names=("rows", "columns"))
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)).cuda()
parallelize_module(model, mesh["columns"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
fully_shard(model, mesh=mesh["rows"])
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    model(torch.ones(4, 8, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def failing(tmp_path: Path, text: str, timeout_s: float = 100.0) -> DistrunError:
    script = tmp_path / "my train; $(x).py"
    script.write_text(text)
    with pytest.raises(DistrunError) as caught:
        trace(script, world_size=8, nproc_per_node=8, timeout_s=timeout_s)
    return caught.value


def loop(line: str = "pass", steps: int = 3, width: int = 8) -> str:
    return LOOP.format(line=line, steps=steps, width=width)


def test_the_five_functions_of_a_script_are_traced_on_thousands_of_ranks() -> None:
    found = trace(SCRIPTS / "parts.py", world_size=256, nproc_per_node=8)
    nbytes = 256 * 256 * 4
    assert set(found.collectives) == {
        Collective("all_gather", "data", 256, nbytes, 12, "forward"),
        Collective("all_gather", "data", 256, nbytes, 12, "backward"),
        Collective("reduce_scatter", "data", 256, nbytes, 12, "backward"),
    }
    assert found.parameters == 12 * 256 * 256
    assert (found.tokens, found.samples) == (32, "samples")
    products = sum(2 * p.m * p.n * p.k * p.count for p in found.matmuls)
    assert products == 2 * 32 * 256 * 256 * (
        12 + 12 + 11
    )  # the first layer's input has no gradient
    optimizer = found.peaks[-1]
    assert optimizer.nbytes["parameters"] == 12 * nbytes // 256


def test_a_plain_script_for_gpus_is_traced_as_it_is() -> None:
    found = trace(SCRIPTS / "loop.py", ["--width", "128"], world_size=16, nproc_per_node=8)
    parameters = 16 * 128 + 128 + 128 * 10 + 10
    assert found.parameters == parameters
    assert found.collectives == (
        Collective("all_reduce", "world", 16, 4 * parameters, 1, "backward"),
    )
    assert {p.dtype for p in found.matmuls} == {"bfloat16"}
    assert found.tokens == 32
    assert found.input_nbytes == 32 * (4 * 16 + 8), "a batch of float32, and int64 labels"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x = torch.ones(4, 9)", "must have same reduction dim, but got [4, 9] X [8, 8]"),
        ("raise ValueError('no \\u2028 luck')", "ValueError: no"),
        ("x = x[x > 0]", "depends on numbers"),
    ],
)
def test_what_would_fail_on_the_cluster_is_told_with_its_line(
    tmp_path: Path, line: str, told: str
) -> None:
    error = failing(tmp_path, loop(line))
    assert isinstance(error, UsageError)
    assert told in error.message and "my train; $(x).py:" in error.message
    assert "\n" not in error.message


def test_a_script_without_two_steps_is_told_so(tmp_path: Path) -> None:
    assert "ended after 1 step of" in failing(tmp_path, loop(steps=1)).message


def test_a_crash_in_c_is_one_sentence_with_the_line(tmp_path: Path) -> None:
    error = failing(tmp_path, loop("import os; os.abort()"))
    assert isinstance(error, UsageError)
    assert "my train; $(x).py:8: torch ended the trace with SIGABRT" in error.message


def test_a_trace_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    error = failing(tmp_path, "import time\nwhile True: time.sleep(60)\n", timeout_s=1.0)
    assert "not traced within 1 s" in error.message


def test_a_recipe_that_refuses_its_flags_is_heard() -> None:
    with pytest.raises(UsageError, match="does not divide among 7"):
        trace(ROOT / "recipes/fsdp.py", world_size=7, nproc_per_node=8)


def test_arguments_that_the_five_functions_do_not_read_are_refused() -> None:
    with pytest.raises(UsageError, match=r"parts\.py does not read its arguments: --layers 3"):
        trace(SCRIPTS / "parts.py", ["--layers", "3"], world_size=8, nproc_per_node=8)


def test_arguments_that_the_five_functions_read_are_their_own(tmp_path: Path) -> None:
    script = tmp_path / "parts.py"
    read = "import sys\nassert sys.argv[1:] == ['--width', '3']\n"
    script.write_text(read + (SCRIPTS / "parts.py").read_text().replace("from __future__", "#"))
    assert trace(script, ["--width", "3"], world_size=8, nproc_per_node=8).collectives


def test_the_command_tells_a_script_that_is_no_recipe() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "distrun", "estimate", "--trace", "--gpus", "1x8:h100"),
            str(SCRIPTS / "parts.py"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fits: ") and "traced" in done.stdout
    assert "(data)" in done.stdout or "data 8" in done.stdout


def test_exact_alone_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "distrun", "estimate", "--exact", "recipes/fsdp.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "--exact" in done.stderr


def test_a_transformer_for_gpus_keeps_no_scores_and_counts_each_token_once() -> None:
    """Kernels of a GPU draw the mask of the dropout again; positions are looked up beside words."""
    found = trace(SCRIPTS / "gpt.py", world_size=4, nproc_per_node=4)
    assert (found.tokens, found.samples) == (2 * 256, "tokens")
    assert {(a.queries, a.head_dim) for a in found.attention} == {(256, 32)}
    scores = 2 * 4 * 256 * 256 * 2
    assert found.peaks[1].nbytes["activations"] < 2 * scores


def test_ranks_that_send_nothing_are_told(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(loop())
    (note,) = trace(script, world_size=8, nproc_per_node=8).notes
    assert "no rank sends anything to another" in note
    assert trace(script, world_size=1, nproc_per_node=1).notes == ()


@pytest.mark.parametrize("package", ["accelerate", "lightning"])
def test_a_loop_of_a_library_reduces_its_gradients(package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    script = SCRIPTS / f"with_{package}.py"
    found = trace(script, [str(tmp_path)], world_size=4, nproc_per_node=4)
    parameters = 64 * 64 + 64
    assert found.parameters == parameters
    assert ("all_reduce", 4 * parameters) in {(c.op, c.nbytes) for c in found.collectives}
    assert found.peaks[-1].nbytes["optimizer"] >= 2 * 4 * parameters
    assert found.samples == "samples" and found.tokens == 8


def test_accelerate_shards_and_its_optimizer_has_all_shards() -> None:
    pytest.importorskip("accelerate")
    found = trace(SCRIPTS / "with_accelerate_fsdp.py", world_size=4, nproc_per_node=4)
    parameters = 3 * (64 * 64 + 64)
    assert found.parameters == parameters
    assert {"all_gather", "reduce_scatter"} <= {c.op for c in found.collectives}
    assert found.peaks[-1].nbytes["optimizer"] >= 2 * 4 * parameters // 4


@pytest.mark.parametrize("nproc_per_node", [1, 8])
def test_what_a_script_asks_of_a_gpu_is_answered(nproc_per_node: int) -> None:
    found = trace(SCRIPTS / "ordinary.py", world_size=8, nproc_per_node=nproc_per_node)
    assert {(c.op, c.group_size) for c in found.collectives} == {
        ("all_gather", 8),
        ("reduce_scatter", 8),
        ("all_reduce", 8),  # of the scaler: whether a gradient is infinite
    }
    assert found.notes == ("SyncBatchNorm is traced as BatchNorm: what it sends is left out",)


@pytest.mark.parametrize("kind", ["hybrid", "offload", "original"])
def test_the_first_generation_of_fsdp_is_traced(kind: str) -> None:
    found = trace(SCRIPTS / "fsdp1.py", [kind], world_size=16, nproc_per_node=8)
    parameters = 64 * 64 + 64 + 2 * (4 * 64 * 64 + 4 * 64 + 2 * 64 * 256 + 256 + 64 + 4 * 64)
    assert found.parameters == parameters
    kinds = {(c.op, c.group_size) for c in found.collectives if c.phase != "optimizer"}
    size = 8 if kind == "hybrid" else 16
    both = {("all_gather", size), ("reduce_scatter", size)}
    assert kinds == (both | {("all_reduce", 2)} if kind == "hybrid" else both)
    assert {c.axis for c in found.collectives if c.phase != "optimizer"} == {*found.beside}
    weights = found.peaks[-1].nbytes.get("parameters", 0)
    if kind == "offload":
        assert found.offloads and found.host_nbytes and not weights
    else:
        assert 0.9 < weights / (4 * parameters / size) < 1.1
    assert found.input_nbytes == 4 * 4 * 16 * 64


def test_no_name_of_a_mesh_decides_whether_its_traffic_is_in_the_way(tmp_path: Path) -> None:
    """fully_shard gathers beside the computation; tensor parallelism is in its way."""
    script = tmp_path / "train.py"
    script.write_text(TWO_AXES)
    found = trace(script, world_size=8, nproc_per_node=8)
    axes = {c.axis for c in found.collectives if c.phase != "optimizer"}
    assert axes == {"rows", "columns"}
    assert found.beside == ("rows",)


def test_files_copies_and_checks_of_the_device_are_no_hindrance(tmp_path: Path) -> None:
    found = trace(SCRIPTS / "habits.py", [str(tmp_path)], world_size=4, nproc_per_node=4)
    nbytes = 4 * (64 * 64 + 64)
    assert [(c.op, c.nbytes) for c in found.collectives] == [("all_reduce", nbytes)]
    assert {p.dtype for p in found.matmuls} == {"tf32"}
    assert found.peaks[-1].nbytes["optimizer"] >= 2 * nbytes
    assert not any(tmp_path.iterdir()), "no weights are written"


def test_attention_of_torch_itself_keeps_no_scores(tmp_path: Path) -> None:
    layer = "nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)"
    text = (
        loop().replace("nn.Linear(8, 8)", layer).replace("torch.ones(4, 8)", "torch.ones(4, 9, 64)")
    )
    (tmp_path / "train.py").write_text(text)
    found = trace(tmp_path / "train.py", world_size=1, nproc_per_node=1)
    assert {(a.batch, a.heads, a.queries) for a in found.attention} == {(4, 4, 9)}


def test_a_model_of_transformers_takes_the_path_of_a_gpu() -> None:
    pytest.importorskip("transformers")
    found = trace(SCRIPTS / "with_transformers.py", world_size=1, nproc_per_node=1)
    assert {(a.causal, a.queries) for a in found.attention} == {(True, 64)}
    assert found.tokens == 2 * 64


def test_a_small_model_waits_for_the_cpu(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(loop())
    work = trace(script, world_size=1, nproc_per_node=1)
    time = step_time(work, Pace({}), Cluster(KINDS["h100"], 1, 1))
    assert work.kernels >= 4
    assert time.total > work.kernels * 5e-6 > 100 * (time.products + time.memory)
