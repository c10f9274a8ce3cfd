"""Calls that cannot work whatever the other ranks do: what is said of each, and the cure.

Every rank of two makes the call. "<rank>" stands for this rank's number, "<peer>" for the
other's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.masked import masked_tensor

from distrun.comm import World


class Refused(NamedTuple):
    """A call, and the message and the hint that it is answered with."""

    call: Callable[[World], object]
    message: str
    hint: str = ""


X = torch.ones(4, 3)
TAKES = {
    "all_reduce": lambda w, x: w.all_reduce(x),
    "all_reduce of a tree": lambda w, x: w.all_reduce({"a": X, "b": x}),
    "reduce": lambda w, x: w.reduce(x),
    "reduce_scatter": lambda w, x: w.reduce_scatter(x),
    "all_gather": lambda w, x: w.all_gather(x),
    "gather": lambda w, x: w.gather([X, x]),
    "scatter": lambda w, x: w.scatter(x),
    "all_to_all": lambda w, x: w.all_to_all(x),
    "broadcast": lambda w, x: w.broadcast(x),
    "send": lambda w, x: w.send(x, 1 - w.rank),
    "recv": lambda w, x: w.recv(x, 1 - w.rank),
}
"""Every collective, given a tensor."""
ROOTED = {
    "reduce": ("dst", lambda w, r: w.reduce(X, r)),
    "gather": ("dst", lambda w, r: w.gather(X, r)),
    "gather_object": ("dst", lambda w, r: w.gather_object(1, r)),
    "send": ("dst", lambda w, r: w.send(X, r)),
    "recv": ("src", lambda w, r: w.recv(X, r)),
    "broadcast": ("src", lambda w, r: w.broadcast(X, r)),
    "broadcast_object": ("src", lambda w, r: w.broadcast_object(1, r)),
    "scatter": ("src", lambda w, r: w.scatter(X, r)),
    "scatter_object": ("src", lambda w, r: w.scatter_object([1, 2], r)),
}
DIMMED = {
    "reduce_scatter": lambda w, x, d: w.reduce_scatter(x, d),
    "all_gather": lambda w, x, d: w.all_gather(x, d),
    "gather": lambda w, x, d: w.gather(x, dim=d),
    "scatter": lambda w, x, d: w.scatter(x, dim=d),
    "all_to_all": lambda w, x, d: w.all_to_all(x, d),
}
CUTTING = {
    "reduce_scatter": lambda w, x, s: w.reduce_scatter(x, sizes=s),
    "scatter": lambda w, x, s: w.scatter(x, sizes=s),
    "all_to_all": lambda w, x, s: w.all_to_all(x, sizes=s),
}
REDUCING = {
    "all_reduce": lambda w, x, op: w.all_reduce(x, op),
    "all_reduce of a tree": lambda w, x, op: w.all_reduce([x], op),
    "reduce": lambda w, x, op: w.reduce(x, op=op),
    "reduce_scatter": lambda w, x, op: w.reduce_scatter(x, op=op),
}
OTHERS = "for other values: all_gather_object, broadcast_object, …"
TAKES_TREES = "a collective takes tensors, and dicts, lists and tuples of them; "


def nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def masked() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls masked tensors a prototype
        return masked_tensor(torch.ones(4, 3), torch.ones(4, 3, dtype=torch.bool))


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.ones(4, 3)


def _tensors() -> Iterator[tuple[str, Refused]]:
    for name, call in TAKES.items():
        what = name.partition(" ")[0]
        yield (
            f"{name} of a tensor elsewhere",
            Refused(
                lambda w, call=call: call(w, torch.ones(4, 3, device="meta")),
                f"{what} was given a tensor on meta, this group is on cpu",
                "pass x.to(world.device)",
            ),
        )
        yield (
            f"{name} of a sparse tensor",
            Refused(
                lambda w, call=call: call(w, torch.ones(4, 3).to_sparse()),
                f"{what} was given a torch.sparse_coo tensor",
                "pass x.to_dense()",
            ),
        )
        yield (
            f"{name} of a masked tensor",
            Refused(
                lambda w, call=call: call(w, masked()),
                f"{what} was given a MaskedTensor, which is two tensors",
                "pass x.get_data() and x.get_mask(), or x.to_tensor(0)",
            ),
        )
        yield (
            f"{name} of a fake tensor",
            Refused(
                lambda w, call=call: call(w, fake()),
                f"{what} was given a FakeTensor, which has no memory of its own",
                "pass the plain tensors that it holds",
            ),
        )
        if what in ("reduce", "send", "recv"):
            message = f"{what} takes a tensor, not a list"
        elif name in ("gather", "all_reduce of a tree"):
            place = "[1][0]" if name == "gather" else "['b'][0]"
            message = TAKES_TREES + f"leaf {place} is not a tensor: "
        else:
            message = TAKES_TREES + "leaf [0] is not a tensor: "
        yield (
            f"{name} of a number in a list",
            Refused(lambda w, call=call: call(w, [1.5]), message, OTHERS),
        )
    for name in ("all_reduce", "all_gather", "broadcast"):
        yield (
            f"{name} of a nested tensor",
            Refused(lambda w, name=name: TAKES[name](w, nested()), f"{name} was given a "),
        )


def _places() -> Iterator[tuple[str, Refused]]:
    for name, (what, call) in ROOTED.items():
        for rank in (2, -1, "0", None, 1.0):
            message = f"{name}: {what}={rank!r} is not a rank of the world, which has ranks 0 to 1"
            yield (
                f"{name} with {what}={rank!r}",
                Refused(lambda w, call=call, rank=rank: call(w, rank), message),
            )
    itself = "is this rank itself", "use x.clone()"
    yield "send to itself", Refused(lambda w: w.send(X, w.rank), "send: dst=<rank> " + itself[0])
    yield "recv of itself", Refused(lambda w: w.recv(X, w.rank), "recv: src=<rank> " + itself[0])
    for name, call in DIMMED.items():
        for dim in (2, -3):
            yield (
                f"{name} along dim {dim}",
                Refused(
                    lambda w, call=call, dim=dim: call(w, X, dim),
                    f"{name}: dim={dim} is out of range for a tensor of shape [4, 3]",
                    "from -2 to 1",
                ),
            )
    yield (
        "reduce_scatter of a scalar",
        Refused(
            lambda w: w.reduce_scatter(torch.tensor(1.0)),
            "reduce_scatter: dim=0 is out of range for a tensor of shape []",
            "a scalar has no dimension: pass x.reshape(1)",
        ),
    )
    yield (
        "a dim that only some leaves have",
        Refused(
            lambda w: w.all_gather({"a": X, "b": X[0]}, 1),
            "all_gather: dim=1 is out of range for a tensor of shape [3]",
            "from -1 to 0",
        ),
    )


def _sizes() -> Iterator[tuple[str, Refused]]:
    for name, call in CUTTING.items():
        yield (
            f"{name} of 3 rows among 2",
            Refused(
                lambda w, call=call: call(w, X[:3], None),
                f"{name}: dim 0 has 3 rows, which cannot be divided by 2 ranks",
                "pad it to 4, or pass sizes=[…], one number per rank",
            ),
        )
        yield (
            f"{name} with sizes of another sum",
            Refused(
                lambda w, call=call: call(w, X, [3, 2]),
                f"{name}: sizes=[3, 2] add up to 5, dim 0 has 4 rows",
            ),
        )
        for sizes in ([4], [1, 1, 2], [5, -1]):
            message = f"{name}: sizes={sizes} must be 2 numbers, one per rank, each 0 or more"
            yield (
                f"{name} with sizes={sizes}",
                Refused(lambda w, call=call, sizes=sizes: call(w, X, sizes), message),
            )
    yield (
        "all_gather with sizes that are not those here",
        Refused(
            lambda w: w.all_gather([X, X], sizes=[5, 5]),
            "all_gather: sizes[<rank>] is 5, the tensors of this rank have [4, 4]",
        ),
    )
    yield (
        "all_gather with sizes for three",
        Refused(
            lambda w: w.all_gather(X, sizes=[4, 4, 4]),
            "all_gather: sizes=[4, 4, 4] must be 2 numbers, one per rank, each 0 or more",
        ),
    )
    yield (
        "all_gather with sizes of another word",
        Refused(lambda w: w.all_gather(X, sizes="even"), "all_gather: sizes='even'"),
    )


def _outs() -> Iterator[tuple[str, Refused]]:
    calls: dict[str, Callable[[World, Any], object]] = {
        "all_reduce": lambda w, out: w.all_reduce(X, out=out),
        "broadcast": lambda w, out: w.broadcast(X, out=out),
        "recv": lambda w, out: w.recv(X, 1 - w.rank, out=out),
    }
    cpu = "torch.float32 on cpu"
    wrong = {
        "another shape": (torch.ones(3, 4), f"[3, 4] {cpu}"),
        "a shape that would broadcast": (torch.ones(2, 4, 3), f"[2, 4, 3] {cpu}"),
        "another dtype": (torch.ones(4, 3).double(), "[4, 3] torch.float64 on cpu"),
        "another device": (
            torch.ones(4, 3, device="meta"),
            "[4, 3] torch.float32 on meta",
        ),
    }
    for name, call in calls.items():
        for what, (out, shown) in wrong.items():
            message = f"{name}: out is {shown}, the result is [4, 3] {cpu}"
            yield (
                f"{name} into {what}",
                Refused(lambda w, call=call, out=out: call(w, out), message),
            )
        yield (
            f"{name} into a list",
            Refused(lambda w, call=call: call(w, [X]), f"{name}: out"),
        )
        if name == "recv":
            continue  # were it not refused, it would wait for ever
        yield (
            f"{name} into memory that several elements share",
            Refused(lambda w, call=call: call(w, torch.ones(1, 3).expand(4, 3)), f"{name}: out"),
        )
    for name, tree in {
        "all_reduce": lambda w, x, out: w.all_reduce(x, out=out),
        "broadcast": lambda w, x, out: w.broadcast(x, out=out),
    }.items():
        yield (
            f"{name} into another tree",
            Refused(
                lambda w, tree=tree: tree(w, {"a": X}, {"b": X}), f"{name}: out has tensors at"
            ),
        )
        yield (
            f"{name} into a tree with a leaf that does not fit",
            Refused(
                lambda w, tree=tree: tree(w, {"a": X, "b": X}, {"a": X, "b": X[0]}),
                f"{name}: out is [3] {cpu}, the result is [4, 3] {cpu}",
            ),
        )


def _ops() -> Iterator[tuple[str, Refused]]:
    some = {
        "means": (X, "op='means' is not a reduction", "did you mean 'mean'?"),
        "mean": (
            X.int(),
            'op="mean" of torch.int32 is not defined',
            'the mean of integers is not an integer: pass x.float(), or use op="sum" and divide',
        ),
        "avg": (X.bool(), 'op="mean" of torch.bool is not defined', "convert it first: x.float()"),
        "max": (
            X.to(torch.complex64),
            'op="max" of torch.complex64 is not defined',
            "complex numbers have no order: only sum and mean work",
        ),
        "sum": (
            X.to(torch.float8_e4m3fn),
            'op="sum" of torch.float8_e4m3fn is not defined',
            "too coarse for sums: pass x.float()",
        ),
        "bor": (
            X,
            'op="bor" of torch.float32 is not defined',
            "for the bits of a float, pass x.view(torch.int32)",
        ),
    }
    for name, call in REDUCING.items():
        for op, (x, message, hint) in some.items():
            yield (
                f"{name} of {x.dtype} with op={op}",
                Refused(lambda w, call=call, x=x, op=op: call(w, x, op), message, hint),
            )
        yield (
            f"{name} with op in a list",
            Refused(
                lambda w, call=call: call(w, X, ["sum"]),
                "op=['sum'] is not a reduction",
                "one of: band, bor, bxor, max, mean, min, prod, sum",
            ),
        )


def _groups() -> Iterator[tuple[str, Refused]]:
    yield (
        "a mesh of three",
        Refused(
            lambda w: w.mesh({"dp": 3}),
            "a mesh of dp=3 does not cover 2 ranks",
            "the product of the lengths must be the world size; one length may be -1",
        ),
    )
    yield (
        "an axis that there is not",
        Refused(
            lambda w: w.mesh({"dp": 2})["pd"], "the mesh has no axis 'pd'", "did you mean 'dp'?"
        ),
    )
    yield "a split by nothing", Refused(lambda w: w.split(None), "split: ")
    yield (
        "a scatter of a tree without tensors",
        Refused(lambda w: w.scatter({}), "scatter: {} holds no tensor to split"),
    )


CALLS: dict[str, Refused] = dict(
    entry for table in (_tensors, _places, _sizes, _outs, _ops, _groups) for entry in table()
)
