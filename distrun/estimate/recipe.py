"""The recipes' settings -> the formula's words: layout, formats, step.

What a Config adds says which recipe it is, so a renamed copy is known too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from distrun.errors import UsageError
from distrun.estimate.layout import AXES, Formats, Layout, Step, Training
from distrun.estimate.presets import of_recipe, preset
from distrun.estimate.shape import Shape
from distrun.spec.estimate import Dims
from distrun.spec.estimate_script import WITHOUT_SCRIPT, Script

_CHOSEN = 2  # experts of a token, and parts of the feed-forward's width, in recipes/moe.py


@dataclass(frozen=True)
class Planned:
    """A training, and how the script names its mesh.

    Attributes:
        training: For the formula.
        mesh: Axes of the script's mesh and their sizes, outermost first.
        axes: Axis of the layout -> the script's name of it.
        recipe: The script's file; "": the flags belong to none.
        assumed: What was not given and is assumed, one sentence each.
        can_offload: The script has `--offload`.
    """

    training: Training
    mesh: Mapping[str, int]
    axes: Mapping[str, str]
    recipe: str = ""
    assumed: tuple[str, ...] = ()
    can_offload: bool = True


def shape_of(dims: Dims) -> Shape:
    """Return the shape that `--dims` describes.

    Raises:
        UsageError: Heads do not divide the width.
    """
    if dims.head_dim is None and dims.dim % dims.heads:
        raise UsageError(
            f"--dims: dim={dims.dim} does not divide among heads={dims.heads}",
            "or give head_dim too",
        )
    return Shape(
        layers=dims.layers,
        dim=dims.dim,
        heads=dims.heads,
        kv_heads=dims.kv_heads or dims.heads,
        head_dim=dims.head_dim or dims.dim // dims.heads,
        ffn=dims.ffn,
        vocab=dims.vocab,
        tied=dims.tied,
        gated=dims.gated,
        biases=dims.biases,
        positions=dims.positions,
        experts=dims.experts,
        chosen=dims.chosen,
    )


def of_size(name: str, sizes: Mapping[str, Mapping[str, Any]], tied: bool | None) -> Shape:
    """Return the shape of a `--size` of the recipes' model.

    Raises:
        UsageError: There is no such size.
    """
    if name not in sizes:
        raise UsageError(f"--size {name!r} is none of {', '.join(sizes) or 'no model.py'}")
    size = sizes[name]
    return Shape(
        layers=size["layers"],
        dim=size["dim"],
        heads=size["heads"],
        kv_heads=size["heads"],
        head_dim=size["dim"] // size["heads"],
        ffn=size["hidden"],
        vocab=size.get("vocab_size", 256),
        tied=size.get("tied", False) if tied is None else tied,
    )


def planned(
    script: Script, given: Mapping[str, Any], world_size: int, shape: Shape | None
) -> Planned:
    """Return what a recipe trains on so many ranks.

    Args:
        script: Its source.
        given: The flags that are given.
        world_size: All ranks.
        shape: From `--dims`; None: of `--size`.

    Raises:
        UsageError: It would refuse these settings too.
    """
    settings = {name: setting.default for name, setting in script.settings.items()} | dict(given)
    if shape is None:
        shape = of_size(settings["size"], script.sizes, settings["tied"])
    layout, mesh, axes = _layout(script, settings, world_size)
    if "experts" in script.own:
        shape = replace(shape, experts=settings["experts"], ffn=shape.ffn // _CHOSEN)
    if shape.tied and (layout.tp > 1 or layout.pp > 1):
        raise UsageError(
            f"{script.path.name}: embedding and head of this model are one matrix, which tensor"
            " and pipeline parallelism need apart",
            "--no-tied makes two",
        )
    rows, assumed = _rows(settings, given, layout.data)
    step = Step(settings["seq_len"], rows, settings["accumulate"], settings["recompute"])
    if layout.pp > 1 and step.accumulate < layout.pp * layout.rounds:
        raise UsageError(
            f"--accumulate {step.accumulate} is below the {layout.pp * layout.rounds} stages, which"
            " would wait for one another",
            f"--accumulate {layout.pp * layout.rounds}",
        )
    training = Training(shape, layout, _formats(script, settings, layout), step)
    if settings["precision"] == "float32":
        assumed = (*assumed, "arithmetic in float32; --precision bfloat16 is far faster on a GPU")
    can_offload = "offload" in script.own
    return Planned(training, mesh, axes, script.path.name, assumed, can_offload)


def without_script(
    given: Mapping[str, Any],
    world_size: int,
    shape: Shape | None,
    sizes: Mapping[str, Mapping[str, Any]],
) -> Planned:
    """Return what flags describe that belong to no recipe.

    Raises:
        UsageError: There is no model, or the axes do not make the ranks.
    """
    settings = {name: setting.default for name, setting in WITHOUT_SCRIPT.items()} | dict(given)
    if shape is None and not settings["size"]:
        raise UsageError(
            "there is neither a script nor a model",
            "distrun estimate recipes/fsdp.py --size 8B, or --dims layers=32,dim=4096,…",
        )
    shape = shape or of_size(settings["size"], sizes, settings["tied"])
    fixed = {name: settings[name] for name in ("replicate", "tp", "pp", "cp")}
    words = (
        " x ".join(f"{name} {size}" for name, size in fixed.items() if size > 1) or "replicate 1"
    )
    rest = _rest(world_size, words, math.prod(fixed.values()))
    if settings["shard"] not in (None, rest):
        raise UsageError(
            f"{words} x shard {settings['shard']} are not {world_size} ranks", f"--shard {rest}"
        )
    zero = int(settings["zero"])
    if zero == 0:
        fixed["replicate"], rest = fixed["replicate"] * rest, 1
    layout = Layout(
        shard=rest,
        ep=settings["ep"],
        stage=zero,  # type: ignore[arg-type]
        flow=settings["flow"],
        rounds=2 if settings["flow"] == "interleaved" else 1,
        offload=settings["offload"],
        **fixed,
    )
    step = Step(*(settings[name] for name in ("seq_len", "rows", "accumulate", "recompute")))
    formats = preset(settings["preset"], compiled=settings["compile"])
    formats = replace(formats, chunks=settings["loss_chunks"])
    mesh = {axis: getattr(layout, axis) for axis in AXES}
    return Planned(Training(shape, layout, formats, step), mesh, {})


def _rows(
    settings: Mapping[str, Any], given: Mapping[str, Any], data: int
) -> tuple[int, tuple[str, ...]]:
    """Return the sequences of a micro-batch on one rank."""
    parts = data * settings["accumulate"]
    if "batch_size" not in given and settings["batch_size"] % parts:
        return 1, (f"--batch-size {parts}: one sequence a rank and micro-batch",)
    if settings["batch_size"] % parts:
        raise UsageError(
            f"--batch-size {settings['batch_size']} does not divide among {data} ranks and"
            f" {settings['accumulate']} micro-batches",
            f"--batch-size {max(1, round(settings['batch_size'] / parts)) * parts}",
        )
    return settings["batch_size"] // parts, ()


def _layout(
    script: Script, settings: Mapping[str, Any], world_size: int
) -> tuple[Layout, dict[str, int], dict[str, str]]:
    """Return the layout, the script's mesh, and its names of our axes."""
    own, name = script.own, script.path.name
    tp, pp = settings.get("tp", 1), settings.get("pp", 1)
    if "pp" in own:
        rounds = 2 if settings.get("flow") == "interleaved" else 1
        what = f"pp {pp} x tp {tp}" if tp > 1 else f"pp {pp}"
        rest = _rest(world_size, what, pp * tp)
        sharded = "tp" in own or settings["beside"] == "fsdp"
        layout = Layout(
            replicate=1 if sharded else rest,
            shard=rest if sharded else 1,
            stage=2 if sharded else 0,
            tp=tp,
            pp=pp,
            flow=settings.get("flow", "1f1b"),
            rounds=rounds,
        )
        axis = "shard" if "tp" in own else "data"
        mesh = {"pp": pp, axis: rest} | ({"tp": tp} if "tp" in own else {})
        return layout, mesh, {"shard": axis, "replicate": axis}
    if "cp" in own:
        rest = _rest(world_size, f"cp {settings['cp']}", settings["cp"])
        layout = Layout(replicate=rest, cp=settings["cp"])
        return layout, {"data": rest, "cp": layout.cp}, {}
    if "experts" in own:
        return Layout(replicate=world_size, ep=world_size), {"ep": world_size}, {"replicate": "ep"}
    if "replicate" in own:
        copies = settings["replicate"]
        rest = _rest(world_size, f"replicate {copies}", copies)
        stage = 3 if settings["reshard"] else 2
        layout = Layout(replicate=copies, shard=rest, stage=stage, offload=settings["offload"])  # type: ignore[arg-type]
        return layout, {"replicate": copies, "shard": rest}, {}
    if "tp" in own:
        rest = _rest(world_size, f"tp {tp}", tp)
        layout = Layout(shard=rest, tp=tp, stage=3 if settings["reshard"] else 2)
        return layout, {"shard": rest, "tp": tp}, {}
    if "loss_parallel" in own:
        return Layout(tp=world_size), {"tp": world_size}, {}
    if "ZeroRedundancyOptimizer" in script.calls:
        return Layout(shard=world_size, stage=1), {"data": world_size}, {"shard": "data"}
    if "DistributedDataParallel" in script.calls:
        return Layout(replicate=world_size), {"data": world_size}, {"replicate": "data"}
    if world_size > 1:
        raise UsageError(f"{name} trains on 1 rank, not on {world_size}", "--gpus 1:h100")
    return Layout(), {"data": 1}, {}


def _rest(world_size: int, what: str, fixed: int) -> int:
    if world_size % fixed:
        near = fixed * max(1, round(world_size / fixed))
        raise UsageError(
            f"{what} needs a multiple of {fixed} ranks, such as {near}, not {world_size}"
        )
    return world_size // fixed


def _formats(script: Script, settings: Mapping[str, Any], layout: Layout) -> Formats:
    sharded = layout.stage >= 2
    views = "gradient_as_bucket_view" in script.calls
    found = of_recipe(
        settings["precision"],
        sharded=sharded,
        bucket_views=views,
        compiled=settings["compile"],
    )
    if layout.pp > 1:
        found = replace(found, keeps_logits=True, keeps_outputs=False)
    if layout.cp > 1:
        found = replace(found, ring_by_hand=settings["attention"] == "ring")
    if layout.pp > 1 and layout.tp > 1:
        return replace(found, loss_parallel=False)
    return replace(found, loss_parallel=settings.get("loss_parallel", True))
