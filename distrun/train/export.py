"""The model of a checkpoint as a program: python -m distrun.train.export DIR SCRIPT OUT.

The ending of OUT is the format: .onnx, or .pt2 of torch.export
(https://docs.pytorch.org/docs/stable/export.html). SCRIPT is the recipe that saved the
checkpoint: its `Config` and `build_model` make the model, and its `example` an input, if its model
does not take tokens. The program is run beside the model before it gets its name. It prints one
line of JSON.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from distrun.dcp.choose import about
from distrun.dcp.export import StoredModel, open_model, told
from distrun.dcp.metadata import CheckpointError
from distrun.train.config import WindowConfig

TOLERANCE = 1e-4
"""By how much the program's results may differ, as a fraction of the largest: its sums go in
another order."""
_MOST_ONNX_NBYTES = (1 << 31) - (1 << 20)
"""Protocol buffers end at 2 GiB."""
Run = Callable[[Tensor], Tensor]
"""Runs a program that was written."""


class ExportError(ValueError):
    """The model cannot be written as a program; the message is for the user."""


def export(where: Path, script: Path, out: Path) -> dict[str, Any]:
    """Write the program; return what was written.

    Args:
        where: A checkpoint, or a directory of them.
        script: The recipe.
        out: The file.

    Raises:
        CheckpointError: No checkpoint is whole.
        ExportError: The script has no such model, or the model is no such program.
        OSError: The file cannot be written; an older file of this name is unchanged.
    """
    stored = open_model(where)
    model, example = _loaded(stored, _imported(script), script)
    sizes = _free_sizes(example)
    partial = out.with_name(f".{uuid.uuid4().hex}{out.suffix}")
    try:
        try:
            run = (_onnx if out.suffix == ".onnx" else _torch_export)(
                model, example, sizes, partial
            )
            difference, largest = _compared(model, run, _other(example, sizes))
        except (ExportError, OSError):
            raise
        except Exception as error:  # whatever the tracing of a user's model raises, or the program
            raise _refusal(error) from None
        if not difference <= TOLERANCE * largest:  # written so that NaN fails too
            raise ExportError(
                f"the program's results differ by {difference:.2g} of {largest:.2g},"
                f" the limit is {TOLERANCE:g} of that"
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    shape = [sizes.get(dim, n) for dim, n in enumerate(example.shape)]
    checked = {"input": shape, "largest_difference": difference, "largest_result": largest}
    return told(stored) | checked


def _imported(script: Path) -> ModuleType:
    sys.path.insert(0, str(script.parent))  # where its model and its data are
    spec = importlib.util.spec_from_file_location("exported_recipe", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise ExportError(f"{script} cannot be imported: {type(error).__name__}: {error}") from None
    return module


def _loaded(stored: StoredModel, module: ModuleType, script: Path) -> tuple[nn.Module, Tensor]:
    """Return the model with the weights of the checkpoint, and an input for it."""
    if lacking := [n for n in ("Config", "build_model") if not hasattr(module, n)]:
        raise ExportError(f"{script} has no {lacking[0]}, which a recipe has")
    known = {field.name for field in dataclasses.fields(module.Config)}
    settings = about(stored.path).get("settings") or {}
    config = module.Config(**{k: v for k, v in settings.items() if k in known})
    try:
        model: nn.Module = module.build_model(config)
        is_empty = any(parameter.is_meta for parameter in model.parameters())
        model.load_state_dict(dict(stored.tensors()), assign=is_empty)
    except CheckpointError:
        raise
    except Exception as error:  # the user's code, and torch's own list of what does not fit
        raise ExportError(f"build_model of {script} does not fit {stored.path}: {error}") from None
    if hasattr(module, "example"):
        example: Tensor = module.example(config)
    elif isinstance(config, WindowConfig):
        example = torch.randint(256, (2, config.seq_len))  # bytes, which every vocabulary has
    else:
        raise ExportError(f"{script} has no function example(config) that returns an input")
    dtype = next(model.parameters()).dtype
    return model.eval(), example.to(dtype) if example.is_floating_point() else example


def _free_sizes(example: Tensor) -> dict[int, str]:
    """Return the dims of the input that may have any size: of tokens both, of pixels the batch."""
    return {0: "batch"} if example.is_floating_point() else {0: "batch", 1: "time"}


def _torch_export(model: nn.Module, example: Tensor, sizes: dict[int, str], out: Path) -> Run:
    """Write what torch.export makes; return how to run the file."""
    free = dict.fromkeys(sizes, Dim.DYNAMIC)
    program = torch.export.export(model, (example,), dynamic_shapes=(free,))
    torch.export.save(program, out)
    return torch.export.load(out).module()


def _onnx(model: nn.Module, example: Tensor, sizes: dict[int, str], out: Path) -> Run:
    """Write ONNX; return how onnxruntime runs the file."""
    import onnxruntime  # of an extra

    nbytes = sum(p.nbytes for p in model.parameters())
    if nbytes > _MOST_ONNX_NBYTES:
        raise ExportError(
            f"an ONNX file holds at most {_MOST_ONNX_NBYTES} bytes of weights,"
            f" and the model has {nbytes}: a .pt2 file has no such limit"
        )
    torch.onnx.export(
        model,
        (example,),
        out,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=(sizes,),
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


def _refusal(error: Exception) -> ExportError:
    cause = error.__cause__ or error  # torch.onnx puts its own advice around it
    first = str(cause).strip().partition("\n")[0] or type(cause).__name__
    return ExportError(f"the model cannot be traced as one program: {first}")


def _other(example: Tensor, sizes: dict[int, str]) -> Tensor:
    """Return an input of other sizes than the example's, where the program allows it."""
    shape = [*example.shape]
    for dim in sizes:
        shape[dim] += 1 if dim == 0 else -1  # not longer: positions may end
    if example.is_floating_point():
        return torch.rand(shape, dtype=example.dtype)
    return torch.randint(256, shape)


@torch.no_grad()
def _compared(model: nn.Module, run: Run, x: Tensor) -> tuple[float, float]:
    """Return by how much the program's results are off, and the largest of the model's."""
    expected, found = model(x), run(x)
    return (found - expected).abs().max().item(), expected.abs().max().item()


def main(where: str, script: str, out: str) -> None:
    """Export, and print the result."""
    warnings.simplefilter("ignore")  # of the exporters about themselves
    try:
        answer = export(Path(where), Path(script), Path(out))
    except (CheckpointError, ExportError) as error:
        answer = {"broken": str(error)}
    except OSError as error:
        answer = {"machine": f"{error.filename or out}: {error.strerror}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
