"""Fine-tuning: published weights compute what they did, train alike on any number of ranks,
and come back in their own layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distrun.train.config import ConfigError, parse
from tests.recipes.curves import Case, curves

Recipe = Callable[[str], ModuleType]
pytestmark = pytest.mark.timeout(240)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
LLAMA: dict[str, Any] = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2}
LLAMA |= {"max_position_embeddings": 64}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2", GPT2 | {"bos_token_id": 0, "eos_token_id": 0}),
    "Llama with shared heads": ("Llama", LLAMA),
    "Llama 3.1": ("Llama", LLAMA | {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "Llama with biases": ("Llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "Llama with wide heads": ("Llama", LLAMA | {"head_dim": 16}),
    "Mistral": ("Mistral", LLAMA | {"sliding_window": None}),
    "Qwen2": ("Qwen2", LLAMA),
}


def publish(name: str, folder: Path, **saving: Any) -> Any:
    """Write a model of random weights as transformers writes it; return the model."""
    transformers = pytest.importorskip("transformers")
    kind, settings = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**settings)
    classes = {"GPT2": "GPT2LMHeadModel"}
    torch.manual_seed(5)
    model = getattr(transformers, classes.get(kind, f"{kind}ForCausalLM"))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones would hide a bias, or a norm
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder, **saving)
    return model


def loaded(recipe: Recipe, folder: Path) -> Any:
    """Return our model with the weights of a folder."""
    found = recipe("published").Published(folder)
    model = recipe("pretrained").Pretrained(found.config)
    model.load_state_dict({name: found.read(name) for name in model.state_dict()})
    return model


TOKENS = torch.randint(0, 300, (2, 60), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_the_logits_are_those_of_transformers_and_what_is_written_loads_there(
    recipe: Recipe, tmp_path: Path, name: str
) -> None:
    theirs = publish(name, tmp_path / "in")
    expected = theirs(TOKENS).logits
    model = loaded(recipe, tmp_path / "in")
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1, "weights that do nothing would compare equal"
    recipe("published").Published(tmp_path / "in").write(model.state_dict(), tmp_path / "out")
    again = type(theirs).from_pretrained(tmp_path / "out")
    assert again(TOKENS).logits.equal(expected)


def test_several_files_with_an_index_are_one_model(recipe: Recipe, tmp_path: Path) -> None:
    expected = publish("GPT-2", tmp_path, max_shard_size="60KB")(TOKENS).logits
    assert len([*tmp_path.glob("model-*.safetensors")]) > 2
    torch.testing.assert_close(loaded(recipe, tmp_path)(TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_gpt2_without_the_name_of_the_module_around_is_known_too(
    recipe: Recipe, tmp_path: Path
) -> None:
    expected = publish("GPT-2", tmp_path)(TOKENS).logits
    file = tmp_path / "model.safetensors"
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(file).items()}
    save_file(tensors | {"h.0.attn.bias": torch.ones(1, 1, 64, 64)}, file)  # the mask of old files
    torch.testing.assert_close(loaded(recipe, tmp_path)(TOKENS), expected, rtol=1e-4, atol=1e-4)


METAS = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk"}
METAS |= {"self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo"}
METAS |= {"mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2"}
METAS |= {"mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm"}
METAS |= {"post_attention_layernorm": "ffn_norm", "embed_tokens": "tok_embeddings"}
METAS |= {"lm_head": "output", "model.": ""}


def test_metas_own_layout_has_the_rows_of_a_head_in_another_order(
    recipe: Recipe, tmp_path: Path
) -> None:
    expected = publish("Llama with shared heads", tmp_path / "in")(TOKENS).logits
    (tmp_path / "meta").mkdir()
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(tmp_path / "in" / "model.safetensors").items():
        if "q_proj" in name or "k_proj" in name:  # rows 0..3, 4..7 of a head -> 0, 4, 1, 5, ...
            heads = tensor.view(-1, 2, 4, 64)
            tensor = torch.stack((heads[:, 0], heads[:, 1]), dim=2).reshape(tensor.shape)
        for theirs, metas in METAS.items():
            name = name.replace(theirs, metas)
        tensors[name] = tensor
    save_file(tensors, tmp_path / "meta" / "consolidated.safetensors")
    params = {"dim": 64, "n_layers": 2, "n_heads": 8, "n_kv_heads": 2, "norm_eps": 1e-6}
    (tmp_path / "meta" / "params.json").write_text(json.dumps(params | {"vocab_size": -1}))
    model = loaded(recipe, tmp_path / "meta")
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-4, atol=1e-4)
    recipe("published").Published(tmp_path / "meta").write(model.state_dict(), tmp_path / "out")
    back = load_file(tmp_path / "out" / "consolidated.safetensors")
    assert back.keys() == tensors.keys()
    assert all(back[name].equal(tensor) for name, tensor in tensors.items())


# --- training ---------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {"precision": "float64", "steps": 4, "batch_size": 4, "seq_len": 32}
SETTINGS |= {"lr": 1e-2, "warmup_steps": 1, "eval_batches": 1, "accumulate": 2}


@pytest.mark.usefixtures("warm_ranks")
def test_any_number_of_ranks_fine_tunes_alike_and_lora_moves_only_what_it_adds(
    recipe: Recipe, tmp_path: Path
) -> None:
    theirs = publish("GPT-2", tmp_path / "in")
    settings = SETTINGS | {"weights": str(tmp_path / "in")}
    lora = settings | {"lora": 4, "lora_on": "all", "output": str(tmp_path / "out")}
    small = SETTINGS | {"lora": 2}
    saving = {"save": True, "checkpoint_dir": str(tmp_path / "kept"), "checkpoint_every": 2}
    cases = {"all": settings, "lora": lora, "small": small}
    one = curves([Case(name, "finetune", each) for name, each in cases.items()], 1)
    alone = load_file(tmp_path / "out" / "model.safetensors")
    shutil.rmtree(tmp_path / "out")
    resumed = lora | {"resume": str(tmp_path / "kept" / "step-00000002")}
    cases |= {"lora": lora | saving, "resumed": resumed}
    two = curves([Case(name, "finetune", each) for name, each in cases.items()], 2)
    for name, curve in one.items():
        assert two[name].losses == pytest.approx(curve.losses, abs=1e-12), name
        assert two[name].norms == pytest.approx(curve.norms, rel=1e-9), name
    assert two["resumed"].losses == pytest.approx(one["lora"].losses[2:], abs=1e-12)
    assert one["all"].losses[0] == pytest.approx(one["lora"].losses[0], abs=1e-12), "B is zero"
    assert one["all"].losses[3] != pytest.approx(one["lora"].losses[3], abs=1e-3)
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == before.keys() == alone.keys()
    for name, tensor in before.items():
        is_matrix_of_a_block = ".h." in name and tensor.ndim == 2
        assert after[name].equal(tensor) != is_matrix_of_a_block, name
        torch.testing.assert_close(after[name], alone[name])
    tuned = type(theirs).from_pretrained(tmp_path / "out")
    assert not tuned(TOKENS).logits.allclose(theirs(TOKENS).logits)


def test_lora_keeps_averages_of_nothing_else(recipe: Recipe) -> None:
    finetune = recipe("finetune")
    config = finetune.Config(lora=2, lora_on="all")
    model = finetune.build_model(config)
    groups = recipe("model").decay_groups(model, 0.1)
    trained = [p for group in groups for p in group["params"]]
    assert len(trained) == 4 * 7 * 2  # blocks, matrices of one, A and B
    assert {id(p) for p in trained} == {
        id(p) for name, p in model.named_parameters() if "lora_" in name
    }


# --- what cannot be used ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' of config.json is none of gpt2, llama"),
        ({"hidden_act": "gelu"}, "hidden_act of config.json is 'gelu': only 'silu' works"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers must be a positive whole number, not '2'"),
        ({"num_hidden_layers": 3}, "no file has a tensor model.layers.2.input_layernorm.weight"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn' of config.json is not"),
        (
            {"hidden_size": 72, "head_dim": 8},
            "embed_tokens.weight is [300, 64] in the file, not [300, 72]",
        ),
    ],
)
def test_a_model_of_another_kind_is_refused_in_a_sentence(
    recipe: Recipe, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    publish("Llama with shared heads", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError) as error:
        recipe("published").Published(tmp_path).require_all()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--weights nowhere", "'nowhere/config.json' cannot be read: No such file or directory"),
        ("--weights text", "'text/config.json' cannot be read: it is not JSON"),
        ("--weights cut", "'cut/model.safetensors' cannot be read: "),
        ("--weights index", "'index/passwd' cannot be read: No such file or directory"),
        ("--weights good --seq-len 65", "--seq-len 65 is more than the 64 positions of the model"),
        ("--output out", "--output writes in the layout of --weights, and there are none"),
        ("--lora -1", "--lora must be at least 0, not -1"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_in_a_sentence(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    publish("GPT-2", tmp_path / "good")
    for name in ("cut", "index", "text"):
        shutil.copytree("good", name)
    Path("cut/model.safetensors").write_bytes(Path("good/model.safetensors").read_bytes()[:-9])
    index = {"weight_map": {"transformer.wte.weight": "../../../etc/passwd"}}
    Path("index/model.safetensors.index.json").write_text(json.dumps(index))
    Path("text/config.json").write_text("{")
    finetune = recipe("finetune")
    with pytest.raises(SystemExit) as ending:
        parse(finetune.Config, finetune.axes, finetune.require_weights, words=flags.split())
    assert ending.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
