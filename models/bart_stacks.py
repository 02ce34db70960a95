"""The encoder and decoder that BART published and other families share: their settings and their names."""

from __future__ import annotations

import math
from typing import Any

from models.errors import Unsupported
from models.family import Config
from models.generative import TRANSLATION, activation_name, activation_of, head_size, padding_of, refuse_heads, stack
from models.kinds import Positions
from models.shape import DecoderShape, LayerShape, ModelShape, OutputShape
from models.weights import Row

NORM_EPS = 1e-5  # what their code has as a constant
OFFSET = 2  # of learned positions: the first two rows are never read
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
IGNORED = (r"(model\.)?(encoder|decoder)\.version", r"lm_head\.bias")
COMPUTED_POSITIONS = r"(model\.)?(encoder|decoder)\.embed_positions\.weight"


def _stack_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    layer, own = f"{theirs}.layers.{{i}}", f"{ours}layers.{{i}}"
    return (
        Row(f"{theirs}.embed_positions.{{p}}", f"{ours}embeddings.position.{{p}}"),
        Row(f"{theirs}.layernorm_embedding.{{p}}", f"{ours}embeddings.norm.{{p}}"),
        *(Row(f"{layer}.self_attn.{a}.{{p}}", f"{own}.attention.{b}.{{p}}") for a, b in ATTENTION.items()),
        Row(f"{layer}.self_attn_layer_norm.{{p}}", f"{own}.attention_norm.{{p}}"),
        Row(f"{layer}.fc1.{{p}}", f"{own}.ffn.up.{{p}}"),
        Row(f"{layer}.fc2.{{p}}", f"{own}.ffn.down.{{p}}"),
        Row(f"{layer}.final_layer_norm.{{p}}", f"{own}.ffn_norm.{{p}}"),
        Row(f"{theirs}.layer_norm.{{p}}", f"{ours}final_norm.{{p}}"),
    )


WORD_ROWS = (
    Row("shared.{p}", "embeddings.word.{p}"),
    Row("encoder.embed_tokens.{p}", "embeddings.word.{p}"),
    Row("decoder.embed_tokens.{p}", "embeddings.word.{p}"),
)
ROWS = (
    *_stack_rows("encoder", ""),
    *_stack_rows("decoder", "decoder."),
    *(
        Row(f"decoder.layers.{{i}}.encoder_attn.{theirs}.{{p}}", f"decoder.layers.{{i}}.cross.{ours}.{{p}}")
        for theirs, ours in ATTENTION.items()
    ),
    Row("decoder.layers.{i}.encoder_attn_layer_norm.{p}", "decoder.layers.{i}.cross_norm.{p}"),
    Row("^lm_head.{p}", "output.projection.{p}", optional=True),
    Row("^final_logits_bias", "output.bias"),
)
# The bias of the words is not in every checkpoint.
ZERO = (r"output\.bias",)


def rows_without(*parts: str) -> tuple[Row, ...]:
    """Return ROWS without those of our modules `parts`, such as `position`, in both stacks."""
    return tuple(row for row in ROWS if not any(f"{part}.{{p}}" in row.ours for part in parts))


def bart_shape(
    config: Config, *, family: str, positions: Positions, pre_norm: bool, embedding_norm: bool
) -> ModelShape:
    """Return the shape of a config with BART's keys.

    Raises:
        Unsupported: a model with another head than words.
        BadInput: a width that the heads do not divide, or an unknown activation.
    """
    refuse_heads(config)
    hidden = int(config["d_model"])
    offset = OFFSET if positions is Positions.LEARNED else 0

    def layer(side: str) -> LayerShape:
        heads = int(config[f"{side}_attention_heads"])
        writes = side == "decoder"
        return LayerShape(
            heads=heads,
            head_size=head_size(hidden, heads),
            ffn=int(config[f"{side}_ffn_dim"]),
            causal=writes,
            cross_heads=heads if writes else None,
        )

    return ModelShape(
        family=family,
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=stack(layer("encoder"), int(config["encoder_layers"])),
        decoder=DecoderShape(stack(layer("decoder"), int(config["decoder_layers"]))),
        output=OutputShape(tied=config.get("tie_word_embeddings") is not False, bias=True, task=TRANSLATION),
        max_positions=int(config.get("max_position_embeddings", 1024)) + offset,
        position_offset=offset,
        positions=positions,
        activation=activation_of(config, "activation_function", "gelu"),
        norm_eps=NORM_EPS,
        pre_norm=pre_norm,
        embedding_norm=embedding_norm,
        embedding_scale=math.sqrt(hidden) if config.get("scale_embedding") else 1.0,
        dropout=float(config.get("dropout", 0.1)),
        attention_dropout=float(config.get("attention_dropout", 0.0)),
        initializer_range=float(config.get("init_std", 0.02)),
        pad_token_id=padding_of(config),
    )


def bart_config(shape: ModelShape, *, architecture: str) -> dict[str, Any]:
    """Return the config with BART's keys of a shape whose layers are all alike in each stack.

    Raises:
        Unsupported: one word table is read by both, and another writes: where a config says so, `transformers` 5 takes
            all tables apart.
    """
    assert shape.decoder is not None and shape.output is not None
    if shape.decoder.vocab_size is None and not shape.output.tied:
        raise Unsupported(
            f"the {shape.family} format has no output of its own beside a shared table", where="this model"
        )
    reads, writes = shape.layers[0], shape.decoder.layers[0]
    return {
        "architectures": [architecture],
        "model_type": shape.family,
        "is_encoder_decoder": True,
        "vocab_size": shape.vocab_size,
        "d_model": shape.hidden_size,
        "encoder_layers": len(shape.layers),
        "encoder_attention_heads": reads.heads,
        "encoder_ffn_dim": reads.ffn,
        "decoder_layers": len(shape.decoder.layers),
        "decoder_attention_heads": writes.heads,
        "decoder_ffn_dim": writes.ffn,
        "max_position_embeddings": shape.usable_positions,
        "activation_function": activation_name(shape),
        "scale_embedding": shape.embedding_scale != 1.0,
        "dropout": shape.dropout,
        "attention_dropout": shape.attention_dropout,
        "init_std": shape.initializer_range,
        "tie_word_embeddings": shape.output.tied,
        "pad_token_id": shape.pad_token_id,
    }


def bias_axes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return the axes of the bias of the words, which these formats hold as a row."""
    return {"output.bias": (1, shape.written_words)}
