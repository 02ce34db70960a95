"""Tiny random models of `transformers` that write, the oracle, saved as its users save them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from support.examples import WORDS
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    MBartConfig,
    MistralConfig,
    PegasusConfig,
    PreTrainedConfig,
    Qwen2Config,
    T5Config,
)

LONGEST = 30
T5_SIZES = {
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "n_positions": LONGEST,
    "decoder_start_token_id": 0,
}
BART_SIZES = {
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
LLAMA_SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": LONGEST,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
SIZES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "t5": (T5Config, T5_SIZES),
    "gpt2": (
        GPT2Config,
        {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": LONGEST, "bos_token_id": 0, "eos_token_id": 0},
    ),
    "bart": (BartConfig, BART_SIZES),
    "mbart": (MBartConfig, BART_SIZES),
    "pegasus": (PegasusConfig, BART_SIZES),
    "marian": (MarianConfig, {**BART_SIZES, "decoder_start_token_id": 1}),
    "llama": (LlamaConfig, LLAMA_SIZES),
    "mistral": (MistralConfig, LLAMA_SIZES),
    "qwen2": (Qwen2Config, LLAMA_SIZES),
}
# The cases that each family must read; the network has all of these settings.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", {}),
    "t5 gated, neither tied nor scaled": ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5 gated silu": ("t5", {"feed_forward_proj": "gated-silu"}),
    "t5 wide heads, as many layers": ("t5", {"d_kv": 10, "num_decoder_layers": None, "layer_norm_epsilon": 1e-3}),
    "gpt2": ("gpt2", {}),
    "gpt2 relu, narrow, one head": ("gpt2", {"activation_function": "relu", "n_inner": 17, "n_head": 1}),
    "gpt2 not tied, not scaled": ("gpt2", {"tie_word_embeddings": False, "scale_attn_weights": False}),
    "bart": ("bart", {}),
    "bart scaled relu": ("bart", {"scale_embedding": True, "activation_function": "relu"}),
    "mbart": ("mbart", {"scale_embedding": True}),
    "pegasus": ("pegasus", {"activation_function": "relu", "scale_embedding": True}),
    "marian": ("marian", {"activation_function": "swish", "scale_embedding": True}),
    "marian of two vocabularies": (
        "marian",
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 43, "activation_function": "relu"},
    ),
    "marian of two vocabularies, not tied": (
        "marian",
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 43, "tie_word_embeddings": False},
    ),
    "llama": ("llama", {}),
    "llama tied, one head of keys, wide heads": (
        "llama",
        {"tie_word_embeddings": True, "num_key_value_heads": 1, "head_dim": 6, "rms_norm_eps": 1e-3},
    ),
    "llama as many keys, another base": (
        "llama",
        {"num_key_value_heads": 6, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    ),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with biases of attention alone": ("llama", {"attention_bias": True}),
    "mistral": ("mistral", {}),
    "mistral with a window as long as texts are": (
        "mistral",
        {"sliding_window": LONGEST, "max_position_embeddings": 99},
    ),
    "qwen2": ("qwen2", {}),
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
}
UNTIED = (
    "t5 gated, neither tied nor scaled",
    "gpt2 not tied, not scaled",
    "marian of two vocabularies, not tied",
    "llama",
)


def writer(family: str, *, seed: int = 0, deviation: float = 0.2, **changes: Any) -> Any:
    """Return a `transformers` model whose every weight is drawn, norms, biases and buffers of biases too."""
    config, sizes = SIZES[family]
    torch.manual_seed(seed)
    made = config(**{"vocab_size": WORDS, **sizes, **changes})
    kind = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(made, attn_implementation="eager").eval()
    if changes.get("tie_word_embeddings") is False:  # T5's code ties whatever its config says
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    # What is not trained is computed: the sinusoidal positions.
    drawn = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    drawn += [(name, value) for name, value in model.named_buffers() if name == "final_logits_bias"]
    with torch.no_grad():
        for name, weight in drawn:
            value = torch.randn(weight.shape) * deviation
            weight.copy_(value + 1 if _is_norm(name) and name.endswith("weight") else value)
    return model


def _is_norm(name: str) -> bool:
    return "norm" in name.lower() or any(part in name for part in (".ln_1.", ".ln_2.", ".ln_f."))


def written(*, rows: int = 4, time: int = 11, pad: int = 0, padded: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Return tokens and their mask; padded rows end at different lengths."""
    random = np.random.default_rng(1000 * seed + time)
    ids = torch.from_numpy(random.integers(2, WORDS, (rows, time)))
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            mask[row, max(1, time - 2 * row - 1) :] = 0
    return {"input_ids": torch.where(mask.bool(), ids, torch.full_like(ids, pad)), "attention_mask": mask}


def batches(model: Any) -> list[dict[str, Tensor]]:
    """Return batches of odd shapes as the network takes them: padded, of one token, and of the longest length."""
    pad = model.config.pad_token_id or 0
    sizes: list[dict[str, Any]] = [
        {},
        {"padded": True},
        {"rows": 1, "time": 1},
        {"rows": 2, "time": LONGEST, "padded": True},
    ]
    read = [written(**size, pad=pad) for size in sizes]
    if not model.config.is_encoder_decoder:
        return read
    lengths, words = (5, 11, 1, LONGEST), model.get_output_embeddings().out_features
    return [
        {**one, "decoder_input_ids": written(rows=len(one["input_ids"]), time=time, seed=1)["input_ids"] % words}
        for one, time in zip(read, lengths, strict=True)
    ]


def logits_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the logits of a `transformers` model."""
    with torch.no_grad():
        logits: Tensor = model(**batch).logits
    return logits
