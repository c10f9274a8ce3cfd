"""Other tools can build a recipe without memory and without other processes."""

from __future__ import annotations

from pathlib import Path

from tests.recipes.launching import RECIPES, run_python

BUILD_ALL = f"""
import importlib, sys
sys.path.insert(0, {str(RECIPES)!r})
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

RANKS = dict(single=1, ddp_gpt=2, zero1=2, fsdp=8, tp=4, fsdp_tp=8, pp=4, pp_fsdp_tp=8, cp=4, moe=4)
for name, ranks in RANKS.items():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    recipe = importlib.import_module(name)
    config = recipe.Config()
    axes = recipe.axes(config, ranks)
    mesh = init_device_mesh("cpu", tuple(axes.values()), mesh_dim_names=tuple(axes))
    with torch.device("meta"):
        model = recipe.build_model(config)
        parallel = recipe.parallelize(model, mesh, config)
    parts = [*model.parameters(), *getattr(parallel, "parameters", list)()]
    assert parts and all(part.is_meta for part in parts), name
    print(name)
    dist.destroy_process_group()
"""


def test_every_gpt_recipe_is_built_on_meta_under_a_fake_process_group(tmp_path: Path) -> None:
    run = run_python(tmp_path, "-W", "ignore", "-c", BUILD_ALL)
    assert run.code == 0, run.err
    assert len(run.out.split()) == 10
