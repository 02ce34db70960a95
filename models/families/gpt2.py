"""GPT-2 (Radford et al. 2019): causal pre-norm layers with learned positions, which write themselves.

Its linear layers are stored transposed, queries, keys and values in one.
"""

from __future__ import annotations

from typing import Any

from models.errors import Unsupported
from models.family import Config, Family
from models.generative import activation_name, activation_of, head_size, padding_of, refuse_heads, stack
from models.shape import LayerShape, ModelShape, OutputShape
from models.weights import Names, Row


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a GPT-2 config.

    Raises:
        Unsupported: cross-attention, or scores divided by the number of their layer.
    """
    refuse_heads(config)
    for key in ("add_cross_attention", "scale_attn_by_inverse_layer_idx"):
        if config.get(key):
            raise Unsupported(f"a gpt2 model with {key}", where="config.json")
    hidden, heads, inner = int(config["n_embd"]), int(config["n_head"]), config.get("n_inner")
    layer = LayerShape(
        heads=heads,
        head_size=head_size(hidden, heads),
        ffn=4 * hidden if inner is None else int(inner),
        causal=True,
    )
    return ModelShape(
        family="gpt2",
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=stack(layer, int(config["n_layer"])),
        output=OutputShape(tied=config.get("tie_word_embeddings") is not False),
        max_positions=int(config.get("n_positions", config.get("n_ctx", 1024))),
        activation=activation_of(config, "activation_function", "gelu_new"),
        norm_eps=float(config.get("layer_norm_epsilon", 1e-5)),
        pre_norm=True,
        attention_scale=None if config.get("scale_attn_weights", True) else 1.0,
        embedding_norm=False,
        dropout=float(config.get("resid_pdrop", 0.1)),
        attention_dropout=float(config.get("attn_pdrop", 0.1)),
        initializer_range=float(config.get("initializer_range", 0.02)),
        pad_token_id=padding_of(config),
    )


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the GPT-2 config of a shape whose layers are all alike."""
    assert shape.output is not None
    layer = shape.layers[0]
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocab_size,
        "n_embd": shape.hidden_size,
        "n_head": layer.heads,
        "n_inner": layer.ffn,
        "n_layer": len(shape.layers),
        "n_positions": shape.max_positions,
        "n_ctx": shape.max_positions,
        "activation_function": activation_name(shape),
        "layer_norm_epsilon": shape.norm_eps,
        "scale_attn_weights": shape.attention_scale is None,
        "resid_pdrop": shape.dropout,
        "embd_pdrop": shape.dropout,
        "attn_pdrop": shape.attention_dropout,
        "initializer_range": shape.initializer_range,
        "tie_word_embeddings": shape.output.tied,
        "pad_token_id": shape.pad_token_id,
    }


GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(
        rows=(
            Row("wte.{p}", "embeddings.word.{p}"),
            Row("wpe.{p}", "embeddings.position.{p}"),
            Row("h.{i}.ln_1.{p}", "layers.{i}.attention_norm.{p}"),
            Row("h.{i}.attn.c_attn.0.{p}", "layers.{i}.attention.query.{p}"),
            Row("h.{i}.attn.c_attn.1.{p}", "layers.{i}.attention.key.{p}"),
            Row("h.{i}.attn.c_attn.2.{p}", "layers.{i}.attention.value.{p}"),
            Row("h.{i}.attn.c_proj.{p}", "layers.{i}.attention.output.{p}"),
            Row("h.{i}.ln_2.{p}", "layers.{i}.ffn_norm.{p}"),
            Row("h.{i}.mlp.c_fc.{p}", "layers.{i}.ffn.up.{p}"),
            Row("h.{i}.mlp.c_proj.{p}", "layers.{i}.ffn.down.{p}"),
            Row("ln_f.{p}", "final_norm.{p}"),
            Row("^lm_head.{p}", "output.projection.{p}", optional=True),
        ),
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
        fused=(("attn.c_attn", 3),),
        transposed=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        prefixes=("transformer.", ""),
    ),
    prefix="transformer.",
)
