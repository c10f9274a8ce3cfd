"""What we need of each private name of torch; a release that changes one fails here."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import SGD, Optimizer

from distrun import torch_private
from distrun.comm import World
from distrun.testing import run_ranks

ON_RANKS = pytest.mark.usefixtures("warm_ranks")


def on_two_ranks(check: object) -> None:
    assert run_ranks(check, 2, "gloo", timeout_s=30) == [None, None]


def test_every_name_has_its_test() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert not [n for n in torch_private.__all__ if f"torch_private.{n}" not in tests]


def test_what_torch_does_not_load_by_itself_is_loaded_when_it_is_asked_for() -> None:
    later = "torch.distributed.checkpoint.filesystem"
    code = (
        "import sys, distrun.torch_private as t\n"
        f"assert {later!r} not in sys.modules\n"
        f"t.StorageInfo; assert {later!r} in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Storage'"):
        torch_private.Storage  # noqa: B018 - the look-up is the test


# --- process groups ------------------------------------------------------------------


@ON_RANKS
def test_parts_of_equal_shape_are_gathered_and_scattered_in_one_tensor() -> None:
    def check(world: World) -> None:
        options = torch_private.AllgatherOptions()
        options.asyncOp = False
        out = torch.empty(2)
        x = torch.tensor([float(world.rank)])
        torch_private.all_gather_single(world.group, out, x, options).wait()
        assert out.tolist() == [0.0, 1.0]
        part = torch.empty(1)
        summed = dist.ReduceScatterOptions()
        summed.asyncOp = False
        x = torch.tensor([1.0, 2.0])
        torch_private.reduce_scatter_single(world.group, part, x, summed).wait()
        assert part.item() == 2.0 * (1 + world.rank)

    on_two_ranks(check)


@ON_RANKS
def test_the_groups_of_a_rank_are_those_that_were_not_destroyed() -> None:
    def check(world: World) -> None:
        group = dist.new_group([0, 1])
        assert set(torch_private.groups()) == {world.group, group}
        dist.barrier(group)  # a peer may still connect, and would see a closed connection
        dist.destroy_process_group(group)
        assert list(torch_private.groups()) == [world.group]

    on_two_ranks(check)


@ON_RANKS
def test_the_default_store_is_shared_by_the_ranks() -> None:
    def check(world: World) -> None:
        torch_private.default_store().set(f"from {world.rank}", "here")
        assert torch_private.default_store().get(f"from {1 - world.rank}") == b"here"

    on_two_ranks(check)


@ON_RANKS
def test_a_group_knows_the_kinds_of_its_devices() -> None:
    def check(world: World) -> None:
        assert torch.device("cpu") in torch_private.device_types(world.group)

    on_two_ranks(check)


@ON_RANKS
def test_a_timeout_holds_for_a_group_that_is_there_already() -> None:
    def check(world: World) -> None:
        group = dist.new_group([0, 1])
        torch_private.set_timeout(group, 0.2)
        if world.rank == 0:
            with pytest.raises(RuntimeError, match=r"[Tt]imed out"):
                dist.all_reduce(torch.ones(1), group=group)
        world.barrier()

    on_two_ranks(check)


@ON_RANKS
def test_a_mesh_that_has_forgotten_its_groups_keeps_none_alive() -> None:
    def check(world: World) -> None:
        mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("a", "b"))
        group = mesh.get_group("a")
        seen = weakref.ref(group)
        dist.destroy_process_group(group)
        torch_private.forget_groups(mesh)
        del group
        gc.collect()
        assert seen() is None

    on_two_ranks(check)


def test_a_group_of_its_members_alone_is_named_by_them_and_a_serial_number() -> None:
    c10d = dist.distributed_c10d
    before = c10d._world.group_count
    names = []
    for serial, ranks in ((1, [0, 1]), (2, [0, 1]), (2, [0, 2])):
        with torch_private.naming_by(serial):
            names.append(c10d._process_group_name(ranks, use_hashed_name=True))
    assert len(set(names)) == 3
    assert c10d._world.group_count == before
    with torch_private.naming_by(1):
        assert c10d._process_group_name([0, 1], use_hashed_name=True) == names[0]


# --- trees ---------------------------------------------------------------------------


def test_a_tree_is_taken_apart_with_the_place_of_each_leaf() -> None:
    tree: torch_private.PyTree = {"b": [1, (2,)], "a": {"c": 3}}
    found, _ = torch_private.tree_flatten_with_path(tree)
    assert {torch_private.keystr(path): leaf for path, leaf in found} == {
        "['b'][0]": 1,
        "['b'][1][0]": 2,
        "['a']['c']": 3,
    }


def test_a_tree_is_put_together_again() -> None:
    tree = {"b": [1, (2,)], "a": {"c": 3}}
    leaves, spec = torch_private.tree_flatten(tree)
    assert isinstance(spec, torch_private.TreeSpec)
    assert leaves == [leaf for _, leaf in torch_private.tree_flatten_with_path(tree)[0]]
    assert torch_private.tree_unflatten(leaves, spec) == tree


def test_a_kind_of_node_says_whether_its_leaves_have_keys() -> None:
    assert torch_private.SUPPORTED_NODES[dict].flatten_with_keys_fn is not None
    assert torch_private.SUPPORTED_NODES.get(int) is None


def test_a_function_that_is_kept_out_of_graphs_is_run_and_not_traced() -> None:
    """In a process of its own: the compiler is imported, and stays."""
    code = """
import torch
from distrun import torch_private
traced = []
def inner(x):
    traced.append(torch.compiler.is_compiling())
    return x + 1
torch_private.keep_out_of_graphs(inner)
assert "torch._dynamo" not in __import__("sys").modules
assert torch.compile(lambda x: inner(x * 2) * 2, backend="eager")(torch.ones(1)).item() == 6
assert traced == [False]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


# --- training ------------------------------------------------------------------------


@ON_RANKS
def test_ddp_leaves_alone_what_it_is_told_to() -> None:
    def check(world: World) -> None:
        layer = nn.Linear(2, 2)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(world.rank)
        model = nn.Sequential(layer)
        torch_private.leave_out_of_ddp(model, ["0.weight"])
        whole = nn.parallel.DistributedDataParallel(model)
        assert layer.weight.unique().tolist() == [world.rank]
        assert layer.bias.unique().tolist() == [0.0]
        whole(torch.full((1, 2), 1.0 + world.rank)).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.unique().tolist() == [1.0 + world.rank]

    on_two_ranks(check)


def test_tensors_are_multiplied_in_place() -> None:
    tensors = [torch.ones(2), torch.full((1,), 3.0)]
    torch_private.multiply_all(tensors, torch.tensor(2.0))
    assert [t.tolist() for t in tensors] == [[2.0, 2.0], [6.0]]


@pytest.mark.parametrize(("value", "found"), [(4.0, 0.0), (float("inf"), 1.0)])
def test_gradients_are_unscaled_in_place_and_what_is_not_finite_is_found(
    value: float, found: float
) -> None:
    grads, found_inf = [torch.full((2,), value)], torch.zeros(1)
    torch_private.unscale_all(grads, found_inf, torch.tensor([0.5]))
    assert found_inf.item() == found
    assert grads[0].tolist() == [value * 0.5] * 2


@pytest.mark.parametrize(("found", "weight"), [(0.0, 0.0), (1.0, 1.0)])
def test_a_scaler_steps_by_what_its_own_reading_of_the_gradients_finds(
    found: float, weight: float
) -> None:
    class Scaler(torch_private.GradScalerBase):
        def unscale_grads(
            self, optimizer: Optimizer, inverse_scale: Tensor, found_inf: Tensor
        ) -> dict[torch.device, Tensor]:
            return {found_inf.device: found_inf.fill_(found)}

    parameter = nn.Parameter(torch.ones(1))
    scaler, optimizer = Scaler("cpu"), SGD([parameter], lr=1.0)
    scaler.begin(torch.device("cpu"))
    parameter.grad = torch.ones(1)
    scaler.step(optimizer)
    scaler.update()
    assert parameter.item() == weight


def test_the_state_of_a_scaler_says_for_how_many_steps_its_scale_has_held() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(torch.ones(1))
    kept = scaler.state_dict() | {torch_private.SCALER_GROWTH: 7}
    scaler.load_state_dict(kept)
    assert scaler.state_dict()[torch_private.SCALER_GROWTH] == 7


@ON_RANKS
def test_collectives_that_return_a_new_tensor_and_have_a_gradient() -> None:
    def check(world: World) -> None:
        functional = torch_private.functional_collectives
        mean = functional.all_reduce(torch.tensor(float(world.rank)), "avg", world.group)
        assert functional.wait_tensor(mean).item() == 0.5
        x = torch.tensor([1.0, 2.0]) + 10 * world.rank
        moved = functional.all_to_all_single(x, None, None, world.group)
        assert functional.wait_tensor(moved).tolist() == [1.0 + world.rank, 11.0 + world.rank]
        x.requires_grad_()
        moved = functional.all_to_all_single_autograd(x, [1, 1], [1, 1], world.group)
        (functional.wait_tensor(moved) * (world.rank + 1)).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [1.0, 2.0]

    on_two_ranks(check)


def test_where_a_chunk_is_stored_goes_through_pickle_under_dcps_own_name() -> None:
    info = torch_private.StorageInfo("rank-00000.safetensors", 0, 12)
    data = pickle.dumps(info, protocol=2)
    assert b"torch.distributed.checkpoint.filesystem\n_StorageInfo\n" in data
    assert pickle.loads(data) == info
    assert torch_private.StorageInfo("f", 0, 0, ["digest"]).transform_descriptors == ["digest"]
