"""The collectives over NCCL, where there is a GPU; no other test needs one."""

from __future__ import annotations

import math

import pytest
import torch

from distrun.comm import World
from distrun.testing import run_ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("warm_ranks"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def every_collective(world: World) -> None:
    n, device = world.world_size, world.device
    x = torch.arange(4.0 * n, device=device)
    assert world.backend == "nccl"
    assert device.type == "cuda"
    assert torch.equal(world.all_reduce(x, "mean"), x)
    assert torch.equal(world.all_reduce({"a": x, "b": [x > 1]})["b"][0], x > 1)
    assert torch.equal(world.reduce_scatter(x), n * x.chunk(n)[world.rank])
    assert world.all_gather(x[: world.rank + 1]).numel() == n * (n + 1) // 2
    assert torch.equal(world.all_gather(x.to(torch.int16)), x.to(torch.int16).repeat(n))
    assert torch.equal(world.broadcast(x, src=n - 1), x)
    assert torch.equal(world.scatter(x if world.rank == 0 else None), x.chunk(n)[world.rank])
    assert world.all_to_all(x).shape == x.shape
    assert world.all_gather_object(world.rank) == list(range(n))
    nan = torch.tensor([math.nan if world.rank == 0 else 1.0], device=device)
    assert world.all_reduce(nan, "max").isnan()
    assert world.all_reduce(x, async_op=True).wait().device == device
    world.barrier()


@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "checked"])
def test_every_collective_works_on_gpus(check: bool) -> None:
    run_ranks(every_collective, torch.cuda.device_count(), "nccl", check=check)
