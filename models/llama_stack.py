"""The causal layers that Llama published and other families share: their settings and their names."""

from __future__ import annotations

from typing import Any

from models.family import Config
from models.generative import (
    activation_name,
    activation_of,
    base_of,
    head_size,
    padding_of,
    refuse_heads,
    rope_keys,
    stack,
)
from models.kinds import Biases, Norm, Positions
from models.shape import LayerShape, ModelShape, OutputShape
from models.weights import Row

ROWS = (
    Row("embed_tokens.{p}", "embeddings.word.{p}"),
    Row("layers.{i}.input_layernorm.{p}", "layers.{i}.attention_norm.{p}"),
    Row("layers.{i}.self_attn.q_proj.{p}", "layers.{i}.attention.query.{p}"),
    Row("layers.{i}.self_attn.k_proj.{p}", "layers.{i}.attention.key.{p}"),
    Row("layers.{i}.self_attn.v_proj.{p}", "layers.{i}.attention.value.{p}"),
    Row("layers.{i}.self_attn.o_proj.{p}", "layers.{i}.attention.output.{p}"),
    Row("layers.{i}.post_attention_layernorm.{p}", "layers.{i}.ffn_norm.{p}"),
    Row("layers.{i}.mlp.gate_proj.{p}", "layers.{i}.ffn.up.{p}"),  # the one behind the activation
    Row("layers.{i}.mlp.up_proj.{p}", "layers.{i}.ffn.gate.{p}"),
    Row("layers.{i}.mlp.down_proj.{p}", "layers.{i}.ffn.down.{p}"),
    Row("norm.{p}", "final_norm.{p}"),
    Row("^lm_head.{p}", "output.projection.{p}", optional=True),
)
IGNORED = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)


def llama_shape(config: Config, *, family: str, biases: Biases) -> ModelShape:
    """Return the shape of a config with Llama's keys.

    Raises:
        Unsupported: a model with another head than words, or wavelengths that are scaled.
        BadInput: a width that the heads do not divide, or an unknown activation.
    """
    refuse_heads(config)
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    shared = int(config.get("num_key_value_heads") or heads)
    layer = LayerShape(
        heads=heads,
        head_size=int(config.get("head_dim") or head_size(hidden, heads)),
        ffn=int(config["intermediate_size"]),
        rotary=base_of(config),
        causal=True,
        kv_heads=None if shared == heads else shared,
    )
    return ModelShape(
        family=family,
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=stack(layer, int(config["num_hidden_layers"])),
        output=OutputShape(tied=bool(config.get("tie_word_embeddings", False))),
        max_positions=int(config.get("max_position_embeddings", 2048)),
        positions=Positions.NONE,
        activation=activation_of(config, "hidden_act", "silu"),
        gated=True,
        norm=Norm.RMS,
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        pre_norm=True,
        biases=biases,
        embedding_norm=False,
        dropout=0.0,
        attention_dropout=float(config.get("attention_dropout", 0.0)),
        initializer_range=float(config.get("initializer_range", 0.02)),
        pad_token_id=padding_of(config),
    )


def llama_config(shape: ModelShape, *, architecture: str) -> dict[str, Any]:
    """Return the config with Llama's keys of a shape whose layers are all alike."""
    assert shape.output is not None
    layer = shape.layers[0]
    return {
        "architectures": [architecture],
        "model_type": shape.family,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": layer.ffn,
        "num_hidden_layers": len(shape.layers),
        "num_attention_heads": layer.heads,
        "num_key_value_heads": layer.key_heads,
        "head_dim": layer.head_size,
        "hidden_act": activation_name(shape),
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": shape.norm_eps,
        **rope_keys(layer.rotary),
        "attention_dropout": shape.attention_dropout,
        "initializer_range": shape.initializer_range,
        "tie_word_embeddings": shape.output.tied,
        "pad_token_id": shape.pad_token_id,
    }
