"""A tiny model with random weights: it proves that the path works, and means nothing.

Built once, without network or model library: a small Llama with the words of
its tokenizer learnt from a few lines. The same bytes on every machine. It never
ends by itself: no text but one that a grammar ends is shorter than its
`max_tokens`, so that tests and figures know how much it writes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from model_server.source import ModelSource, find_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]

__all__ = ["PLACEHOLDER_ID", "WARNING", "build_placeholder", "find_placeholder"]

PLACEHOLDER_ID = "llmesh/tiny-random"
WARNING = "this is a placeholder model with random weights: what it writes means nothing"
# Part of the folder's name: another one is built anew.
VERSION = 1

SEED = 20_260_101
VOCABULARY = 640
HIDDEN, INNER, LAYERS, HEADS = 128, 256, 2, 4
CONTEXT = 4096
END = "<|end|>"
SPECIAL = (END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# What the tokenizer learns its longer tokens from.
LEARNT_FROM = (
    "The mesh finds every tool by its contract, asks the rules whether a call may be made, and says why if not.",
    "A ticket says what went wrong, when it did, and what was tried; the answer names the passage that it rests on.",
    'You are an assistant. Answer the question as JSON: {"summary": "", "category": "", "confidence": 0.5}',
    "What is there to do next? Write the name of the method, then its request, and nothing else after that.",
    "Please say in one sentence how the service can be started, who may call it, and where its documents are kept.",
)


def find_placeholder(folder: Path) -> ModelSource:
    """The model below this folder, built if it isn't there."""
    return find_source(str(build_placeholder(folder)), "", id=PLACEHOLDER_ID, warning=WARNING)


def build_placeholder(folder: Path) -> Path:
    """The model's own folder below this one, built if it isn't there; whole, whoever builds it at the same time."""
    made = folder / f"tiny-random-{VERSION}"
    if made.is_dir():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder, prefix=".tiny-random-"))
    try:
        _write_tokenizer(draft)
        _write_weights(draft)
        for name, content in (("config.json", _config()), ("tokenizer_config.json", _tokenizer_config())):
            (draft / name).write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
        draft.rename(made)
    except OSError:
        # Another process was faster.
        if not made.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LEARNT_FROM, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def _write_weights(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.Generator(np.random.PCG64(SEED))

    def normal(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * (shape[-1] ** -0.5)).astype(np.float32)

    weights: Weights = {"model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        norms = ("input_layernorm", "post_attention_layernorm")
        weights |= {f"{at}.{name}.weight": np.ones(HIDDEN, np.float32) for name in norms}
        weights |= {f"{at}.self_attn.{each}_proj.weight": normal(HIDDEN, HIDDEN) for each in "qkvo"}
        weights |= {f"{at}.mlp.{name}_proj.weight": normal(INNER, HIDDEN) for name in ("gate", "up")}
        weights[f"{at}.mlp.down_proj.weight"] = normal(HIDDEN, INNER)
    weights["model.embed_tokens.weight"] = normal(VOCABULARY, HIDDEN) * 8
    weights["lm_head.weight"] = normal(VOCABULARY, HIDDEN) * 2
    _never_end(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _never_end(weights: Weights) -> None:
    """Let the first number of every hidden state be large and the same, and count against the special tokens."""
    for layer in range(LAYERS):
        weights[f"model.layers.{layer}.self_attn.o_proj.weight"][0] = 0
        weights[f"model.layers.{layer}.mlp.down_proj.weight"][0] = 0
    weights["model.embed_tokens.weight"][:, 0] = 16
    weights["lm_head.weight"][:, 0] = 0
    weights["lm_head.weight"][: len(SPECIAL), 0] = -16


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "eos_token_id": 0,
        "bos_token_id": None,
        "torch_dtype": "float32",
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
