"""Cutting, packing and laying out: pure functions, with hostile values."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree

from distrun.comm.errors import CommUsageError
from distrun.comm.layout import cut, from_rows, padded, require_dim, require_sizes, to_rows
from distrun.comm.mesh import Mesh, complete, lines_along
from distrun.comm.packing import Packing, row_nelement, wire
from distrun.comm.tree import by_key, flatten, pack, unpack

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32),
    *(torch.int64, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
]


def filled(shape: tuple[int, ...], dtype: torch.dtype, start: int = 1) -> torch.Tensor:
    """Return a tensor of numbers that differ where the dtype lets them."""
    count = int(np.prod(shape))
    return (torch.arange(start, start + count) % 7).reshape(shape).to(dtype)


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*flat)


# --- dims and rows --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ndim", "dim", "found"), [(1, 0, 0), (1, -1, 0), (3, 2, 2), (3, -1, 2), (3, -3, 0)]
)
def test_a_dim_is_counted_from_the_front(ndim: int, dim: int, found: int) -> None:
    assert require_dim("call", torch.empty([2] * ndim), dim) == found


@pytest.mark.parametrize(
    ("shape", "dim", "hint"),
    [
        ((), 0, "a scalar has no dimension: pass x.reshape(1)"),
        ((), -1, "a scalar has no dimension: pass x.reshape(1)"),
        ((2,), 1, "from -1 to 0"),
        ((2,), -2, "from -1 to 0"),
        ((2, 0, 3), 3, "from -3 to 2"),
        ((2, 0, 3), -4, "from -3 to 2"),
        ((2,), 10**30, "from -1 to 0"),
    ],
)
def test_a_dim_outside_is_refused_with_the_range(
    shape: tuple[int, ...], dim: int, hint: str
) -> None:
    with pytest.raises(CommUsageError) as refused:
        require_dim("gather", torch.empty(shape), dim)
    assert refused.value.message == (
        f"gather: dim={dim} is out of range for a tensor of shape {list(shape)}"
    )
    assert refused.value.hint == hint


@pytest.mark.parametrize("dim", [0.5, None, "0"], ids=repr)
def test_a_dim_that_is_no_integer_is_refused(dim: Any) -> None:
    with pytest.raises(CommUsageError, match="gather: dim="):
        require_dim("gather", torch.empty(2, 2), dim)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (0, 3), (3, 0), (2, 3, 4), (1, 1, 1)], ids=str)
def test_rows_have_the_dim_in_front_and_go_back(shape: tuple[int, ...]) -> None:
    x = filled(shape, torch.float32)
    for dim in range(len(shape)):
        rows = to_rows(x, dim)
        assert np.array_equal(rows.numpy(), np.moveaxis(x.numpy(), dim, 0))
        assert rows.is_contiguous()
        back = from_rows(rows, dim)
        assert back.is_contiguous()
        assert torch.equal(back, x)


# --- sizes and cuts -------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[0, 0, 0], (1, 2, 3), torch.tensor([4, 0, 1])], ids=str)
def test_sizes_come_back_as_a_list_of_ints(sizes: Any) -> None:
    found = require_sizes("call", sizes, 3)
    assert found == [int(s) for s in sizes]
    assert all(type(s) is int for s in found)


@pytest.mark.parametrize("sizes", [[], [1], [1, 2, 3, 4], [1, 2, -1], [-3, 3, 3]], ids=str)
def test_sizes_that_are_not_one_count_a_rank_are_refused(sizes: list[int]) -> None:
    with pytest.raises(CommUsageError) as refused:
        require_sizes("scatter", sizes, 3)
    assert str(refused.value) == (
        f"scatter: sizes={sizes} must be 3 numbers, one per rank, each 0 or more"
    )


@pytest.mark.parametrize("sizes", [[1.5, 1.5], ["1", "1"], [None, 1], 2, "ab"], ids=repr)
def test_sizes_that_are_no_counts_are_refused(sizes: Any) -> None:
    with pytest.raises(CommUsageError, match="sizes="):
        require_sizes("scatter", sizes, 2)


@pytest.mark.parametrize(
    ("length", "sizes", "n", "found"),
    [
        (6, None, 3, [2, 2, 2]),
        (0, None, 3, [0, 0, 0]),
        (5, None, 1, [5]),
        (5, [0, 5, 0], 3, [0, 5, 0]),
        (0, [0, 0], 2, [0, 0]),
        (3, (1, 2), 2, [1, 2]),
    ],
)
def test_a_dim_is_cut_into_one_part_a_rank(
    length: int, sizes: Any, n: int, found: list[int]
) -> None:
    assert cut("call", torch.empty(2, length), 1, sizes, n) == found


def test_a_length_that_does_not_divide_is_refused_with_two_cures() -> None:
    with pytest.raises(CommUsageError) as refused:
        cut("reduce_scatter", torch.empty(2, 7), 1, None, 4)
    assert refused.value.message == (
        "reduce_scatter: dim 1 has 7 rows, which cannot be divided by 4 ranks"
    )
    assert refused.value.hint == "pad it to 8, or pass sizes=[…], one number per rank"


def test_sizes_that_do_not_add_up_are_refused_with_both_sums() -> None:
    with pytest.raises(CommUsageError) as refused:
        cut("all_to_all", torch.empty(7), 0, [3, 3], 2)
    assert str(refused.value) == "all_to_all: sizes=[3, 3] add up to 6, dim 0 has 7 rows"


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([[1, 2], [3, 4]], [1, 2, 3, 4]),
        ([[1], [2, 3], []], [1, 0, 2, 3, 0, 0]),
        ([[], []], []),
        ([[5]], [5]),
    ],
)
def test_parts_are_padded_to_the_longest(parts: list[list[int]], found: list[int]) -> None:
    tensors = [torch.tensor(part, dtype=torch.int64) for part in parts]
    assert padded(tensors).tolist() == found


# --- bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (2, 2), (0,), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_wire_is_a_flat_view_with_a_known_number_of_elements_a_row(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = filled(shape, dtype)
    flat = wire(x)
    assert flat.ndim == 1
    assert flat.data_ptr() == x.data_ptr()
    assert len(flat) == shape[0] * row_nelement(x)
    assert flat.nbytes == x.nbytes


@pytest.mark.parametrize("lengths", [[1] * 17, [0] * 17, [3, 0, 1, 2] * 4 + [5]], ids=str)
def test_rows_of_all_dtypes_in_one_block_come_out_bit_by_bit(lengths: list[int]) -> None:
    shapes = [(), (3,), (2, 2), (1, 5)]
    rows = [
        filled((length, *shapes[i % 4]), dtype, i)
        for i, (length, dtype) in enumerate(zip(lengths, DTYPES, strict=True))
    ]
    packing = Packing.of(rows)
    nbytes = packing.nbytes(lengths)
    assert nbytes % 16 == 0
    assert 0 <= nbytes - sum(r.nbytes for r in rows) < 16
    block = packing.pack(rows, nbytes + 32)
    assert block.dtype == torch.uint8
    assert len(block) == nbytes + 32
    for found, row in zip(packing.unpack(block, lengths), rows, strict=True):
        assert same_bytes(found, row)


def test_blocks_of_several_ranks_are_joined_tensor_by_tensor() -> None:
    odd, wide = torch.uint8, torch.complex128
    lengths = [[1, 2], [0, 1], [3, 0]]
    ranks = [[filled((a, 3), odd, r), filled((b,), wide, r)] for r, (a, b) in enumerate(lengths)]
    packing = Packing.of(ranks[0])
    sizes = [packing.nbytes(each) for each in lengths]
    blocks = torch.cat([packing.pack(rows, n) for rows, n in zip(ranks, sizes, strict=True)])
    found = packing.unpack_all(blocks, sizes, lengths)
    for joined, parts in zip(found, zip(*ranks, strict=True), strict=True):
        assert same_bytes(joined, torch.cat(parts))


# --- trees ----------------------------------------------------------------------------

Pair = namedtuple("Pair", "left right")
T = torch.ones(1)


class Box:
    """A node of a library that says nothing of keys."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def __repr__(self) -> str:
        return f"Box({self.x})"


class Strict(Box):
    """A node that takes a tensor and nothing else."""

    def __init__(self, x: Any) -> None:
        assert isinstance(x, torch.Tensor)
        super().__init__(x)


pytree.register_pytree_node(Box, lambda b: ([b.x], None), lambda x, _: Box(*x))
pytree.register_pytree_node(
    Strict,
    lambda b: ([b.x], None),
    lambda x, _: Strict(*x),
    flatten_with_keys_fn=lambda b: ([(pytree.GetAttrKey("x"), b.x)], None),
)


@pytest.mark.parametrize(
    ("tree", "paths"),
    [
        (Box(T), ("<0>",)),
        (Strict(T), (".x",)),
        ({"b": Box([T, {"k": T}]), "a": Strict(T)}, ("['a'].x", "['b']<0>", "['b']<1>")),
        (Box(Strict(T)), ("<0>",)),
    ],
    ids=str,
)
def test_nodes_of_other_libraries_are_trees_too(tree: Any, paths: tuple[str, ...]) -> None:
    leaves, structure = flatten(tree)
    assert structure.paths == paths
    assert repr(structure.unflatten(leaves)) == repr(tree)


@pytest.mark.parametrize(
    ("tree", "count"),
    [
        (T, 1),
        ([], 0),
        ({}, 0),
        ((), 0),
        ([[], {}], 0),
        ({"a": [T, (T,)], 3: T}, 3),
        (Pair(T, Pair(T, [T])), 3),
        (OrderedDict(b=T, a=T), 2),
    ],
)
def test_a_tree_is_taken_apart_and_put_together(tree: Any, count: int) -> None:
    leaves, spec = flatten(tree)
    assert len(leaves) == count
    again = spec.unflatten(leaves)
    assert type(again) is type(tree)
    assert repr(again) == repr(tree)


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        (3, "it is 3"),
        (None, "it is None"),
        ("x" * 200, "it is '" + "x" * 79),
        (np.ones(1), "it is array([1.])"),
        ([T, 3.5], "leaf [1] is not a tensor: 3.5"),
        ({"a": T, "b": [T, None]}, "leaf ['b'][1] is not a tensor: None"),
        ({"a": {1}}, "leaf ['a'] is not a tensor: {1}"),
    ],
    ids=range(7),
)
def test_a_leaf_that_is_no_tensor_is_named(tree: Any, what: str) -> None:
    with pytest.raises(CommUsageError) as refused:
        flatten(tree)
    assert refused.value.message == (
        f"a collective takes tensors, and dicts, lists and tuples of them; {what}"
    )
    assert refused.value.hint == "for other values: all_gather_object, broadcast_object, …"


def test_tensors_of_one_dtype_share_a_buffer_and_come_out_of_it() -> None:
    shapes = [(), (0,), (2, 3), (2, 0), (1,)]
    tensors = [filled(shape, torch.float32, i) for i, shape in enumerate(shapes)]
    tensors[2] = tensors[2].T.contiguous().T  # strided
    flat = torch.cat([pack(tensors), torch.zeros(5)])  # padded
    for found, x in zip(unpack(flat, shapes), tensors, strict=True):
        assert torch.equal(found, x)
        assert found.shape == x.shape


def test_items_are_grouped_by_key_in_order_of_appearance() -> None:
    found = by_key("bananas", lambda letter: letter)
    assert list(found.items()) == [("b", [0]), ("a", [1, 3, 5]), ("n", [2, 4]), ("s", [6])]
    assert by_key("", str) == {}


# --- meshes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "n", "found"),
    [
        ({"dp": 4}, 4, {"dp": 4}),
        ({"dp": -1}, 1, {"dp": 1}),
        ({"dp": -1, "tp": 2}, 8, {"dp": 4, "tp": 2}),
        ({"dp": 2, "tp": -1}, 2, {"dp": 2, "tp": 1}),
        ({"pp": 2, "dp": -1, "tp": 3}, 12, {"pp": 2, "dp": 2, "tp": 3}),
    ],
)
def test_an_open_length_is_worked_out(sizes: dict[str, int], n: int, found: Any) -> None:
    given = dict(sizes)
    assert list(complete(sizes, n).items()) == list(found.items())
    assert sizes == given


@pytest.mark.parametrize(
    ("sizes", "product"),
    [
        ({}, "no axes"),
        ({"dp": 2}, "dp=2"),
        ({"dp": -1, "tp": -1}, "dp=-1 x tp=-1"),
        ({"dp": -1, "tp": 3}, "dp=-1 x tp=3"),
        ({"dp": -1, "tp": 0}, "dp=-1 x tp=0"),
        ({"dp": -2, "tp": -2}, "dp=-2 x tp=-2"),
        ({"dp": 0}, "dp=0"),
        ({"dp": 4.0}, "dp=4.0"),
        ({"dp": -1, "tp": 8}, "dp=-1 x tp=8"),
    ],
)
def test_lengths_that_do_not_cover_the_ranks_are_refused(
    sizes: dict[str, int], product: str
) -> None:
    with pytest.raises(CommUsageError) as refused:
        complete(sizes, 4)
    assert refused.value.message == f"a mesh of {product} does not cover 4 ranks"
    assert refused.value.hint == (
        "the product of the lengths must be the world size; one length may be -1"
    )


@pytest.mark.parametrize("lengths", [[1], [5], [2, 3], [3, 1, 2], [2, 2, 2], [1, 1]], ids=str)
def test_lines_along_an_axis_are_those_of_a_row_major_grid(lengths: list[int]) -> None:
    grid = np.arange(int(np.prod(lengths))).reshape(lengths)
    for axis, length in enumerate(lengths):
        wanted = np.moveaxis(grid, axis, -1).reshape(-1, length).tolist()
        assert sorted(lines_along(axis, lengths)) == sorted(wanted)


def test_an_axis_that_is_not_there_is_refused_by_name() -> None:
    mesh: Mesh[Any] = Mesh({"data": 1, "tensor": 1}, {}, None)
    with pytest.raises(CommUsageError, match=r"the mesh has no axis 'tenso'") as refused:
        mesh["tenso"]
    assert refused.value.hint == "did you mean 'tensor'?"
    assert repr(mesh) == "Mesh(data=1, tensor=1)"
    with pytest.raises(CommUsageError, match="threads have no DeviceMesh"):
        _ = mesh.device_mesh
