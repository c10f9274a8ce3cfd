"""Published weights: safetensors files in the layouts of transformers and of Meta, by their names.

    config.json and model.safetensors            GPT-2, Llama, Mistral, Qwen2 as on the hub
      or model.safetensors.index.json            the same in several files
    params.json and consolidated*.safetensors    Llama and Mistral as their makers give them

Files are mapped into memory, and one tensor is read at a time. What differs between the layouts:
GPT-2 keeps matrices as [in, out] (Conv1D), and q, k and v in one; Meta turns the pairs (0, 1),
(2, 3), ... of a head where transformers and this model turn (i, i + h / 2), so q and k have their
rows in another order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pretrained import Pretrained
from published_config import of_meta, of_transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distrun.train.config import ConfigError


class Layout(NamedTuple):
    """Our names to those of a file."""

    layer: str
    """Before the name of a part of layer N."""
    parts: dict[str, str]
    ends: dict[str, str]


_BLOCK = (
    *("attention_norm", "attention.q", "attention.k", "attention.v", "attention.out"),
    *("feed_forward_norm", "feed_forward.gate", "feed_forward.up", "feed_forward.down"),
)
_LLAMA = (
    *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    *("self_attn.o_proj", "post_attention_layernorm"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
_META = (
    *("attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo"),
    *("ffn_norm", "feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
)
_GPT2 = (
    *("ln_1", "attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj"),
    *("ln_2", "", "mlp.c_fc", "mlp.c_proj"),
)
LAYOUTS = {
    "gpt2": Layout(
        "h.N.",
        dict(zip(_BLOCK, _GPT2, strict=True)),
        {"embed": "wte", "positions": "wpe", "norm": "ln_f"},
    ),
    "llama": Layout(
        "model.layers.N.",
        dict(zip(_BLOCK, _LLAMA, strict=True)),
        {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    ),
    "meta": Layout(
        "layers.N.",
        dict(zip(_BLOCK, _META, strict=True)),
        {"embed": "tok_embeddings", "norm": "norm", "head": "output"},
    ),
}
_FUSED = ("attention.q", "attention.k", "attention.v")


class Published:
    """The weights in a folder.

    Args:
        folder: As it was downloaded.

    Raises:
        ConfigError: It holds none that finetune.py knows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        is_metas = not (folder / "config.json").is_file() and (folder / "params.json").is_file()
        settings = self._json("params.json" if is_metas else "config.json")
        self._files: dict[str, Any] = {}
        for file in self._found(is_metas):
            opened = _open(file)
            self._files |= dict.fromkeys(opened.keys(), opened)
        # the files of openai-community lack the name of the module around
        self._prefix = "transformer." if "transformer.wte.weight" in self._files else ""
        if is_metas:
            hidden, vocab = (
                self._shape(name)[0]
                for name in ("layers.0.feed_forward.w1.weight", "tok_embeddings.weight")
            )
            self.config, self.style = of_meta(settings, hidden, vocab), "meta"
        else:
            self.config = of_transformers(settings)
            self.style = self.config.family

    def require_all(self) -> None:
        """Refuse files that lack a tensor of the model, or have it in another shape.

        Raises:
            ConfigError: They do.
        """
        with torch.device("meta"):
            model = Pretrained(self.config)
        for name, parameter in model.named_parameters():
            theirs, part, dim = self._place(name)
            wanted = list(parameter.shape)
            if part is not None:
                wanted[0] *= 3
            if dim == "transposed":
                wanted.reverse()
            if (found := self._shape(theirs)) != wanted:
                raise ConfigError(
                    f"--weights {str(self.folder)!r}: {theirs} is {found} in the file,"
                    f" not {wanted} as its settings say"
                )

    def read(self, name: str) -> Tensor:
        """Return the tensor of one of our parameters, in our layout."""
        theirs, part, dim = self._place(name)
        tensor: Tensor = self._file_of(theirs).get_tensor(theirs)
        if dim == "transposed":
            tensor = tensor.T
        if part is not None:
            tensor = tensor.chunk(3)[part]  # [3 D, D] -> [D, D]
        if heads := self._pairs(name):  # rows 0, 1, 2, 3, ... -> 0, 2, ..., 1, 3, ...
            tensor = tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        return tensor.contiguous()

    def write(self, tensors: Mapping[str, Tensor], out: Path) -> None:
        """Write our tensors in the layout and the dtypes of this folder, beside its other files.

        Args:
            tensors: The model, without LoRA.
            out: A folder, which is made.
        """
        out.mkdir(parents=True, exist_ok=True)
        pieces: dict[str, list[Tensor]] = {}
        for name, tensor in tensors.items():
            theirs, _, dim = self._place(name)
            if heads := self._pairs(name):
                tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
            tensor = tensor.T if dim == "transposed" else tensor
            pieces.setdefault(theirs, []).append(tensor)
        whole = {}
        for theirs, parts in pieces.items():
            dtype = self._file_of(theirs).get_slice(theirs)[:0].dtype
            together = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]  # q, k, v
            whole[theirs] = together.to(dtype).contiguous()
        name = "consolidated" if self.style == "meta" else "model"
        save_file(whole, out / f"{name}.safetensors", metadata={"format": "pt"})
        for file in self.folder.glob("*.json"):  # settings and tokenizer
            if not file.name.endswith(".index.json"):
                shutil.copy(file, out / file.name)

    # -- names ---------------------------------------------------------------------------

    def _place(self, name: str) -> tuple[str, int | None, str]:
        """Return the name in the file, which third of that tensor it is, and "transposed" or ""."""
        layout, (module, _, kind) = LAYOUTS[self.style], name.rpartition(".")
        if not module.startswith("blocks."):
            return f"{self._prefix}{layout.ends[module]}.{kind}", None, ""
        _, number, inside = module.split(".", 2)
        theirs = f"{self._prefix}{layout.layer.replace('N', number)}{layout.parts[inside]}.{kind}"
        if self.style != "gpt2":
            return theirs, None, ""
        part = _FUSED.index(inside) if inside in _FUSED else None
        return theirs, part, "transposed" if kind == "weight" and "norm" not in inside else ""

    def _pairs(self, name: str) -> int:
        """Return how many heads have their rows in Meta's order, 0 if none."""
        if self.style != "meta":
            return 0
        of = {"attention.q": self.config.heads, "attention.k": self.config.kv_heads}
        return next((n for part, n in of.items() if name.endswith(f"{part}.weight")), 0)

    def _shape(self, theirs: str) -> list[int]:
        return [*self._file_of(theirs).get_slice(theirs).get_shape()]

    def _file_of(self, theirs: str) -> Any:
        if theirs not in self._files:
            raise ConfigError(f"--weights {str(self.folder)!r}: no file has a tensor {theirs}")
        return self._files[theirs]

    # -- files ---------------------------------------------------------------------------

    def _json(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not JSON"
            raise ConfigError(f"--weights: {str(file)!r} cannot be read: {why}") from None
        if not isinstance(found, dict):
            raise ConfigError(f"--weights: {str(file)!r} is no JSON object")
        return found

    def _found(self, is_metas: bool) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if is_metas:
            files = sorted(self.folder.glob("consolidated*.safetensors"))
        elif index.is_file():
            names = self._json(index.name).get("weight_map")
            if not isinstance(names, dict):
                raise ConfigError(f"--weights: {str(index)!r} has no table weight_map")
            # names of files in this folder, whatever the index says
            files = [self.folder / Path(str(name)).name for name in sorted(set(names.values()))]
        else:
            files = [self.folder / "model.safetensors"]
        if not files:
            raise ConfigError(f"--weights {str(self.folder)!r} has no consolidated*.safetensors")
        return files


def _open(file: Path) -> Any:
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"--weights: {str(file)!r} cannot be read: {error}") from None
