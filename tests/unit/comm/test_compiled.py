"""Inside of a compiled function a collective gives what it gives outside."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distrun.comm import World
from distrun.comm import functional as F
from distrun.testing import RanksFailed, run_ranks

pytestmark = pytest.mark.usefixtures("warm_ranks")
BACKENDS = pytest.mark.parametrize("backend", ["threads", "gloo"])


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's compiler, which looks
@BACKENDS
def test_compiled_or_not_the_numbers_and_gradients_are_the_same(backend: str) -> None:
    def fn(world: World) -> None:
        axis = world.mesh({"dp": 2})["dp"]

        def step(x: torch.Tensor) -> list[Any]:
            y = F.all_reduce(x * 2, world)
            handle = world.all_gather(y.detach() + 1, async_op=True)
            z = handle.wait() * world.world_size
            tree = axis.all_reduce({"a": x.detach()})["a"]
            names = world.all_gather_object(f"rank {world.rank}")
            part = world.reduce_scatter(z)
            return [(y * y).sum(), z, tree, handle.result, part, torch.tensor(len(names))]

        x = torch.arange(4.0, requires_grad=True)
        plain = step(x)
        for _ in range(2):
            compiled = torch.compile(step, backend="aot_eager")(x)
            for one, other in zip(plain, compiled, strict=True):
                assert torch.equal(one, other)
            (gradient,) = torch.autograd.grad(compiled[0], x)
            (wanted,) = torch.autograd.grad(plain[0], x, retain_graph=True)
            assert torch.equal(gradient, wanted)

    run_ranks(fn, 2, backend, timeout_s=120)


def test_a_full_graph_is_refused_with_the_reason() -> None:
    def fn(world: World) -> None:
        torch.compile(lambda x: world.all_reduce(x), backend="eager", fullgraph=True)(torch.ones(1))

    with pytest.raises(RanksFailed, match=r"collective of distrun\.comm"):
        run_ranks(fn, 1, timeout_s=120)
