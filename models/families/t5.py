"""T5 (Raffel et al. 2020), version 1.0 and 1.1: an encoder and a decoder of pre-norm layers without biases, which know
places by distances alone. mT5 is T5 1.1.

The format has one table of distances for each stack. Here every layer has its own copy, so that heads can be cut out of
each; tables that differ cannot be written back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.errors import BadInput
from models.family import Config, Family
from models.generative import ACTIVATIONS, TRANSLATION, activation_name, padding_of, refuse_heads, stack
from models.kinds import Activation, Biases, Norm, Positions, member
from models.shape import DecoderShape, LayerShape, ModelShape, OutputShape, RelativeBias
from models.weights import Names, Row

LONGEST = 512  # what the published models were trained on; distances have no end


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a T5 config. Version 1.1 neither scales nor ties the output; its configs say so by
    `tie_word_embeddings`, since `transformers` 5 by `scale_decoder_outputs`.
    """
    refuse_heads(config)
    gated, activation = _feed_forward(str(config.get("feed_forward_proj", "relu")))
    hidden, layers = int(config["d_model"]), int(config["num_layers"])
    layer = LayerShape(heads=int(config["num_heads"]), head_size=int(config["d_kv"]), ffn=int(config["d_ff"]))
    writes = replace(layer, causal=True, cross_heads=layer.heads)
    written = config.get("num_decoder_layers")
    tied = config.get("tie_word_embeddings") is not False
    scaled = bool(config.get("scale_decoder_outputs", tied))
    dropout = float(config.get("dropout_rate", 0.1))
    return ModelShape(
        family="t5",
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=stack(layer, layers),
        decoder=DecoderShape(stack(writes, layers if written is None else int(written))),
        output=OutputShape(tied=tied, scale=hidden**-0.5 if scaled else 1.0, task=TRANSLATION),
        max_positions=int(config.get("n_positions", LONGEST)),
        positions=Positions.NONE,
        relative=RelativeBias(
            int(config.get("relative_attention_num_buckets", 32)),
            int(config.get("relative_attention_max_distance", 128)),
        ),
        activation=activation,
        gated=gated,
        norm=Norm.RMS,
        norm_eps=float(config.get("layer_norm_epsilon", 1e-6)),
        pre_norm=True,
        biases=Biases.NONE,
        attention_scale=1.0,
        embedding_norm=False,
        dropout=dropout,
        attention_dropout=dropout,
        initializer_range=float(config.get("initializer_range", 0.02)),
        pad_token_id=padding_of(config),
    )


def _feed_forward(form: str) -> tuple[bool, Activation]:
    """Return whether it is gated, and its activation; gated-gelu is the tanh approximation."""
    *before, name = form.split("-")
    if before not in ([], ["gated"]):
        raise BadInput(f"feed_forward_proj is {form!r}", where="config.json")
    activation = member(Activation, "gelu_new" if form == "gated-gelu" else name, ACTIVATIONS, where="config.json")
    return bool(before), activation


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the T5 config of a shape whose layers are all alike."""
    assert shape.decoder is not None and shape.output is not None and shape.relative is not None
    layer, scaled = shape.layers[0], shape.output.scale != 1.0
    gated_gelu = shape.gated and shape.activation is Activation.GELU_TANH
    name = "gelu" if gated_gelu else activation_name(shape)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": shape.vocab_size,
        "d_model": shape.hidden_size,
        "d_kv": layer.head_size,
        "d_ff": layer.ffn,
        "num_heads": layer.heads,
        "num_layers": len(shape.layers),
        "num_decoder_layers": len(shape.decoder.layers),
        "feed_forward_proj": f"gated-{name}" if shape.gated else name,
        "relative_attention_num_buckets": shape.relative.buckets,
        "relative_attention_max_distance": shape.relative.max_distance,
        "layer_norm_epsilon": shape.norm_eps,
        "dropout_rate": shape.dropout,
        "initializer_range": shape.initializer_range,
        "n_positions": shape.max_positions,
        "tie_word_embeddings": shape.output.tied,
        "scale_decoder_outputs": scaled,
        "pad_token_id": shape.pad_token_id,
    }


def _rows(stack_of: str, ours: str, *, feed: int) -> tuple[Row, ...]:
    """Return the rows of a stack, whose feed-forward sublayer has the number `feed`."""
    layer, own = f"{stack_of}.block.{{i}}.layer", f"{ours}layers.{{i}}"
    attention = {"q": "query", "k": "key", "v": "value", "o": "output"}
    dense = f"{layer}.{feed}.DenseReluDense"
    return (
        *(Row(f"{layer}.0.SelfAttention.{a}.{{p}}", f"{own}.attention.{b}.{{p}}") for a, b in attention.items()),
        Row(f"{layer}.0.layer_norm.{{p}}", f"{own}.attention_norm.{{p}}"),
        Row(
            f"{stack_of}.block.0.layer.0.SelfAttention.relative_attention_bias.{{p}}",
            f"{own}.attention.relative.{{p}}",
        ),
        Row(f"{dense}.wi.{{p}}", f"{own}.ffn.up.{{p}}", form="plain"),
        Row(f"{dense}.wi_0.{{p}}", f"{own}.ffn.up.{{p}}", form="gated"),
        Row(f"{dense}.wi_1.{{p}}", f"{own}.ffn.gate.{{p}}"),
        Row(f"{dense}.wo.{{p}}", f"{own}.ffn.down.{{p}}"),
        Row(f"{layer}.{feed}.layer_norm.{{p}}", f"{own}.ffn_norm.{{p}}"),
        Row(f"{stack_of}.final_layer_norm.{{p}}", f"{ours}final_norm.{{p}}"),
    )


T5 = Family(
    name="t5",
    model_types=("t5", "mt5"),
    shape_of=shape_of,
    config_of=config_of,
    form_of=lambda shape: "gated" if shape.gated else "plain",
    names=Names(
        rows=(
            Row("shared.{p}", "embeddings.word.{p}"),
            Row("encoder.embed_tokens.{p}", "embeddings.word.{p}"),
            Row("decoder.embed_tokens.{p}", "embeddings.word.{p}"),
            *_rows("encoder", "", feed=1),
            *_rows("decoder", "decoder.", feed=2),
            *(
                Row(
                    f"decoder.block.{{i}}.layer.1.EncDecAttention.{theirs}.{{p}}",
                    f"decoder.layers.{{i}}.cross.{ours}.{{p}}",
                )
                for theirs, ours in {"q": "query", "k": "key", "v": "value", "o": "output"}.items()
            ),
            Row("decoder.block.{i}.layer.1.layer_norm.{p}", "decoder.layers.{i}.cross_norm.{p}"),
            Row("lm_head.{p}", "output.projection.{p}", optional=True),
        ),
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    ),
    prefix="",
)
