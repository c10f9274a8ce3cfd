"""What config.json of transformers, or Meta's params.json, says of a model's shape."""

from __future__ import annotations

from typing import Any

from pretrained import PretrainedConfig, RotaryScaling

from distrun.train.config import ConfigError

LLAMAS = ("llama", "mistral", "qwen2")
"""Values of model_type whose blocks are Llama's."""


def of_transformers(settings: dict[str, Any]) -> PretrainedConfig:
    """Return the shape that a config.json gives.

    Raises:
        ConfigError: The model is of another kind, or has a part that pretrained.py lacks.
    """
    kind = settings.get("model_type")
    if kind == "gpt2":
        return _gpt2(settings)
    if kind not in LLAMAS:
        known = ", ".join(("gpt2", *LLAMAS))
        raise ConfigError(f"--weights: model_type {kind!r} of config.json is none of {known}")
    _require(settings, hidden_act="silu", use_sliding_window=False)
    if kind == "mistral":
        _require(settings, sliding_window=None)
    dim, heads = _count(settings, "hidden_size"), _count(settings, "num_attention_heads")
    # since transformers 5 in one table, before that in two places
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    bias = bool(settings.get("attention_bias", False))
    if bias != bool(settings.get("mlp_bias", False)):
        raise ConfigError("--weights: attention_bias and mlp_bias of config.json differ")
    return PretrainedConfig(
        family="llama",
        layers=_count(settings, "num_hidden_layers"),
        dim=dim,
        heads=heads,
        kv_heads=_count(settings, "num_key_value_heads", heads),
        head_dim=_count(settings, "head_dim", dim // heads),
        hidden=_count(settings, "intermediate_size"),
        vocab_size=_count(settings, "vocab_size"),
        max_positions=_count(settings, "max_position_embeddings"),
        norm_eps=_number(settings, "rms_norm_eps", 1e-6),
        tied=bool(settings.get("tie_word_embeddings", False)),
        qkv_bias=bias or kind == "qwen2",
        bias=bias,
        theta=_number({**settings, **rope}, "rope_theta", 10000.0),
        scaling=_scaling(rope),
    )


def of_meta(settings: dict[str, Any], hidden: int, vocab_size: int) -> PretrainedConfig:
    """Return the shape that a params.json gives.

    Args:
        settings: The file's content.
        hidden: Rows of w1; the file has only a rule for it.
        vocab_size: Rows of the embedding; the file may say -1.
    """
    dim, heads = _count(settings, "dim"), _count(settings, "n_heads")
    scaled = settings.get("use_scaled_rope", False)  # Llama 3.1
    return PretrainedConfig(
        family="llama",
        layers=_count(settings, "n_layers"),
        dim=dim,
        heads=heads,
        kv_heads=_count(settings, "n_kv_heads", heads),
        head_dim=_count(settings, "head_dim", dim // heads),
        hidden=hidden,
        vocab_size=vocab_size,
        max_positions=0,
        norm_eps=_number(settings, "norm_eps", 1e-5),
        tied=False,
        qkv_bias=False,
        bias=False,
        theta=_number(settings, "rope_theta", 10000.0),
        scaling=RotaryScaling(8.0, 1.0, 4.0, 8192) if scaled else None,
    )


def _gpt2(settings: dict[str, Any]) -> PretrainedConfig:
    _require(
        settings,
        activation_function="gelu_new",
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        tie_word_embeddings=True,
    )
    dim, heads = _count(settings, "n_embd"), _count(settings, "n_head")
    return PretrainedConfig(
        family="gpt2",
        layers=_count(settings, "n_layer"),
        dim=dim,
        heads=heads,
        kv_heads=heads,
        head_dim=dim // heads,
        hidden=_count(settings, "n_inner", 4 * dim),
        vocab_size=_count(settings, "vocab_size"),
        max_positions=_count(settings, "n_positions"),
        norm_eps=_number(settings, "layer_norm_epsilon", 1e-5),
        tied=True,
        qkv_bias=True,
        bias=True,
    )


def _scaling(rope: dict[str, Any]) -> RotaryScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ConfigError(f"--weights: rope_type {kind!r} of config.json is not default or llama3")
    return RotaryScaling(
        _number(rope, "factor"),
        _number(rope, "low_freq_factor"),
        _number(rope, "high_freq_factor"),
        _count(rope, "original_max_position_embeddings"),
    )


def _require(settings: dict[str, Any], **wanted: object) -> None:
    """Refuse a part that pretrained.py lacks; a setting that is not there has its usual value."""
    for key, value in wanted.items():
        if (found := settings.get(key, value)) != value:
            raise ConfigError(f"--weights: {key} of config.json is {found!r}: only {value!r} works")


def _count(settings: dict[str, Any], key: str, default: int | None = None) -> int:
    value = settings.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"--weights: {key} must be a positive whole number, not {value!r}")
    return value


def _number(settings: dict[str, Any], key: str, default: float | None = None) -> float:
    value = settings.get(key, default)
    if not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"--weights: {key} must be a positive number, not {value!r}")
    return float(value)
