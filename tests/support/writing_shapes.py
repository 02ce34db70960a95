"""Tiny shapes of models that write, with what each family has and others do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.networks import EVEN, PRUNED, WRITES, tiny_shape

from models.kinds import Activation, Biases, Norm, Positions
from models.shape import DecoderShape, LayerShape, OutputShape, RelativeBias

CROSSING = LayerShape(4, 8, 24, causal=True, cross_heads=4)
WRITER: dict[str, Any] = {"head": None, "type_vocab_size": 0}
SHAPES = {
    "bart": tiny_shape(
        decoder=DecoderShape((CROSSING, CROSSING)), output=OutputShape(bias=True), position_offset=2, **WRITER
    ),
    "bart, pruned": tiny_shape(PRUNED, decoder=DecoderShape(WRITES), output=OutputShape(bias=True), **WRITER),
    "marian": tiny_shape(
        decoder=DecoderShape((CROSSING,), vocab_size=41),
        output=OutputShape(bias=True),
        positions=Positions.HALVES,
        embedding_scale=5.0,
        embedding_norm=False,
        **WRITER,
    ),
    "t5": tiny_shape(
        decoder=DecoderShape((CROSSING, replace(CROSSING, heads=2))),
        output=OutputShape(scale=0.2),
        positions=Positions.NONE,
        relative=RelativeBias(6, 5),
        norm=Norm.RMS,
        pre_norm=True,
        biases=Biases.NONE,
        attention_scale=1.0,
        embedding_norm=False,
        gated=True,
        activation=Activation.GELU_TANH,
        **WRITER,
    ),
    "gpt2": tiny_shape(
        tuple(replace(layer, causal=True) for layer in EVEN),
        output=OutputShape(),
        pre_norm=True,
        embedding_norm=False,
        **WRITER,
    ),
    "llama": tiny_shape(
        (
            LayerShape(4, 8, 24, causal=True, rotary=100.0, kv_heads=2),
            LayerShape(3, 8, 17, causal=True, rotary=100.0, kv_heads=1),
            LayerShape(0, 8, 0, causal=True, rotary=100.0),
        ),
        output=OutputShape(tied=False),
        positions=Positions.NONE,
        norm=Norm.RMS,
        pre_norm=True,
        biases=Biases.READING,
        embedding_norm=False,
        gated=True,
        activation=Activation.SILU,
        **WRITER,
    ),
}
