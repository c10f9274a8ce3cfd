"""What a trace needs of each private name of torch. Most change the whole process: one child each.

A snippet that fails names what a new release of torch has changed.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distrun import torch_fakes

BEGIN = """
import json, sys, torch, torch.distributed as dist
from torch import nn
from distrun import torch_fakes
done = []
"""
SNIPPETS = {
    "join_fake_group": """
torch_fakes.join_fake_group(5, 4096)
x = torch.ones(3)
dist.all_reduce(x)
assert (dist.get_rank(), dist.get_world_size()) == (5, 4096) and x.tolist() == [1, 1, 1]
""",
    "default_group_name": """
name = torch_fakes.default_group_name()
assert name == dist.group.WORLD.group_name
""",
    "group_named": "assert torch_fakes.group_named(name).size() == 4096",
    "fake_mode": """
with torch_fakes.fake_mode() as mode:
    huge = torch.empty(1 << 50)
    assert (huge + torch.ones(1)).shape == huge.shape  # with a tensor that is not fake
""",
    "active_fake_mode": """
assert torch_fakes.active_fake_mode() is None
with mode:
    assert torch_fakes.active_fake_mode() is mode
""",
    "outside_of_modes": """
with mode, torch_fakes.outside_of_modes():
    assert torch.ones(2).tolist() == [1, 1]
""",
    "DispatchMode": """
class Seen(torch_fakes.DispatchMode):
    names = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))
with Seen() as seen:
    torch.ones(2) + 1
assert "aten::add.Tensor" in seen.names
""",
    "schema_of": """
schema = torch_fakes.schema_of(torch.ops.aten.add_.Tensor)
assert schema.arguments[0].name == "self" and schema.returns[0].alias_info.is_write
""",
    "in_backward": """
inside = []
leaf = torch.ones(1, requires_grad=True)
leaf.register_hook(lambda grad: inside.append(torch_fakes.in_backward()))
(leaf * 2).backward()
assert inside == [True] and not torch_fakes.in_backward()
""",
    "after_backward": """
order = []
leaf = torch.ones(1, requires_grad=True)
(leaf * 1).register_hook(lambda grad: torch_fakes.after_backward(lambda: order.append("end")))
y = leaf * 1
y.register_hook(lambda grad: torch_fakes.after_backward(lambda: order.append("end")))
leaf.register_hook(lambda grad: order.append("leaf"))
y.backward()
assert order == ["leaf", "end"]
""",
    "run_backward_in": """
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
class Names(TorchFunctionMode):
    seen = []
    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))
names = Names()
torch_fakes.run_backward_in(names)
leaf = torch.ones(1, requires_grad=True)
with names:
    checkpoint(torch.exp, leaf, use_reentrant=False).backward()
assert names.seen.count("exp") == 2, names.seen
""",
    "left_out_of_ddp": """
from distrun.torch_private import leave_out_of_ddp
model = nn.Linear(2, 2)
assert torch_fakes.left_out_of_ddp(model) == set()
leave_out_of_ddp(model, ["bias"])
assert torch_fakes.left_out_of_ddp(model) == {"bias"}
""",
    "propagate_apart": """
from torch.distributed.tensor import DTensor, Shard
torch_fakes.propagate_apart()
seen = []
class Sizes(torch_fakes.DispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        if torch_fakes.active_fake_mode() is mode and isinstance(result, torch.Tensor):
            seen.append(result.numel())
        return result
mesh = dist.init_device_mesh("cpu", (4096,))
with mode:
    part = DTensor.from_local(torch.empty(2, 3), mesh, [Shard(0)], run_check=False)
    with Sizes():
        part + part
assert seen and max(seen) == 6, seen
""",
    "cut_lazily": """
from torch.distributed.fsdp import fully_shard
torch_fakes.cut_lazily()
for rows, mine in ((8192, 2), (6, 1), (5, 0)):
    layer = fully_shard(nn.Linear(3, rows, bias=False), mesh=mesh)
    assert layer.weight.to_local().shape[0] == mine, (rows, layer.weight.to_local().shape)
""",
    "answer_lists": """
torch_fakes.answer_lists(lambda tensor: [7] * len(tensor))
with mode:
    assert torch.empty(3).tolist() == [7, 7, 7]
""",
    "foreach_as_on_gpus": """
torch_fakes.foreach_as_on_gpus()
with mode:
    weight = nn.Parameter(torch.empty(3))
    weight.grad = torch.empty(3)
    with Seen() as seen:
        torch.optim.SGD([weight], lr=1.0).step()
assert "aten::_foreach_add_.List" in seen.names, seen.names
""",
    "step_always": """
torch_fakes.step_always()
weight = nn.Parameter(torch.ones(1))
scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
scaler.scale(weight * float("inf")).backward()
scaler.step(torch.optim.SGD([weight], lr=1.0))
assert not weight.isfinite().all()
""",
    "swap_nothing": """
torch_fakes.swap_nothing()
with mode:
    with torch.device("meta"):
        model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        model["b"].weight = model["a"].weight
    model.to(torch.bfloat16).to_empty(device="cpu")
assert model["a"].weight.dtype == torch.bfloat16 and model["a"].weight.device.type == "cpu"
assert model["a"].weight is model["b"].weight
""",
    "address_of": """
with mode:
    a, b = torch.empty(4), torch.empty(4)
assert len({torch_fakes.address_of(x) for x in (a, b, a[1:])}) == 3
assert torch_fakes.address_of(a.view(2, 2)) == torch_fakes.address_of(a)
""",
    "flat_numel": """
from torch.distributed.fsdp import FullyShardedDataParallel
inner = FullyShardedDataParallel(nn.Linear(3, 5), device_id=torch.device("cpu"))
assert torch_fakes.flat_numel(inner) == 20
outer = FullyShardedDataParallel(nn.Sequential(inner), device_id=torch.device("cpu"))
assert torch_fakes.flat_numel(outer) == 0
""",
    "stages_agree": """
from torch.distributed.pipelining import PipelineStage
shapes = []
torch_fakes.stages_agree(shapes)
from torch.distributed.pipelining._utils import _StageForwardMeta, _TensorMeta
class Stage: stage_index = 1
PipelineStage._send_meta(Stage, _StageForwardMeta((_TensorMeta.from_tensor(torch.ones(2, 3)),)), 2)
assert shapes == [[[2, 3], [3, 1], "float32"]]
assert PipelineStage._recv_meta(Stage, 0).forward_metas[0].shape == (2, 3)
assert PipelineStage._recv_meta(Stage, 2).backward_metas[0].dtype == torch.float32
""",
}


@pytest.fixture(scope="module")
def passed() -> dict[str, str]:
    """Run the snippets in one child; "" for each that passed, else what it raised."""
    code = BEGIN + "results = {}\n"
    for name, snippet in SNIPPETS.items():
        code += f"try:\n    exec({snippet!r}); results[{name!r}] = ''\n"
        code += f"except Exception as error: results[{name!r}] = repr(error)\n"
    code += "print(json.dumps(results), flush=True); import os; os._exit(0)"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110
    )
    assert child.stdout, child.stderr
    result: dict[str, str] = json.loads(child.stdout.splitlines()[-1])
    return result


def test_every_name_has_its_snippet() -> None:
    assert set(torch_fakes.__all__) == set(SNIPPETS)


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_private_name_does_what_a_trace_needs(name: str, passed: dict[str, str]) -> None:
    assert passed[name] == ""
