"""ModernBERT (Warner et al. 2024): pre-norm layers with turned queries and keys, most in a window, and gated FFNs.

Biases that a config switches off are zeros here, and a recovery may use them. What is written says that it has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.bert_encoder import ACTIVATIONS, even_layers
from models.errors import BadInput, Unsupported
from models.family import Config, Family, architecture_of, head_keys, head_of
from models.kinds import Activation, Positions, Reads, member
from models.shape import HeadShape, ModelShape
from models.weights import Layout, Names, Row

WHOLE, LOCAL = "full_attention", "sliding_attention"
# What the absence of a key means: the base of the wavelengths, and its name in configs of before transformers 5.
BASES = {WHOLE: (160_000.0, "global_rope_theta"), LOCAL: (10_000.0, "local_rope_theta")}
POOLING = {"cls": Reads.FIRST, "mean": Reads.MEAN}
# What a key that is false leaves out.
BIASES = {
    "norm_bias": r"(.*\.|)[a-z_]*norm\.bias",
    "attention_bias": r"layers\.\d+\.attention\..*\.bias",
    "mlp_bias": r"layers\.\d+\.ffn\..*\.bias",
    "classifier_bias": r"head\.dense\.bias",
}


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a ModernBERT config.

    Raises:
        Unsupported: wavelengths that are scaled.
        BadInput: a layer of a kind that is not known, or as `even_layers` raises.
    """
    hidden = int(config["hidden_size"])
    even = even_layers(
        int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=int(config["num_attention_heads"]),
        ffn=int(config["intermediate_size"]),
    )
    kinds = _kinds(config, len(even))
    windows = {WHOLE: None, LOCAL: int(config.get("local_attention", 128)) // 2}
    bases = {kind: _base(config, kind) for kind in BASES}
    return ModelShape(
        family="modernbert",
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=tuple(
            replace(layer, window=windows[kind], rotary=bases[kind], normed=index > 0)
            for index, (layer, kind) in enumerate(zip(even, kinds, strict=True))
        ),
        max_positions=int(config.get("max_position_embeddings", 8192)),
        positions=Positions.NONE,
        activation=_activation(config, "hidden_activation"),
        norm_eps=float(config.get("norm_eps", 1e-5)),
        pre_norm=True,
        dropout=float(config.get("mlp_dropout", 0.0)),
        attention_dropout=float(config.get("attention_dropout", 0.0)),
        initializer_range=float(config.get("initializer_range", 0.02)),
        pad_token_id=int(config.get("pad_token_id") or 0),
        head=_head(config),
        gated=True,
    )


def _kinds(config: Config, layers: int) -> list[str]:
    """Return of each layer whether it sees everything."""
    every = int(config.get("global_attn_every_n_layers", 3))
    kinds = config.get("layer_types")
    if kinds is None and every > 0:
        kinds = [LOCAL if index % every else WHOLE for index in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= {WHOLE, LOCAL}:
        raise BadInput(f"layer_types is {kinds!r} for {layers} layers", where="config.json")
    return kinds


def _base(config: Config, kind: str) -> float:
    """Return the base of the wavelengths of a kind of layer; null for local layers means that of the others."""
    default, old = BASES[kind]
    ropes = config.get("rope_parameters") or {}
    given = ropes.get(kind) or {} if isinstance(ropes, Mapping) else None
    if not isinstance(given, Mapping):
        raise BadInput(f"rope_parameters is {ropes!r}", where="config.json")
    if config.get("rope_scaling") or given.get("rope_type", "default") != "default":
        raise Unsupported("wavelengths that are scaled", where="config.json")
    theta = given.get("rope_theta", config.get(old, default))
    return float(_base(config, WHOLE) if theta is None and kind == LOCAL else theta)


def _head(config: Config) -> HeadShape | None:
    dropout = float(config.get("classifier_dropout", 0.0))
    activation = _activation(config, "classifier_activation")
    head = head_of(config, activation=activation, dropout=dropout, token_dropout=dropout)
    if head is None:
        return None
    pooling = member(Reads, str(config.get("classifier_pooling", "cls")), POOLING, where="config.json")
    return replace(head, activation=activation, reads=Reads.EACH if head.tokens else pooling, normed=True)


def _activation(config: Config, key: str) -> Activation:
    return member(Activation, str(config.get(key, "gelu")), ACTIVATIONS, where="config.json")


def layout_of(config: Config) -> Layout:
    """Return which biases a config switches off."""
    return Layout(zero=tuple(pattern for key, pattern in BIASES.items() if not config.get(key, False)))


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the ModernBERT config of a shape whose layers have one size."""
    layer, head = shape.layers[0], shape.head
    windows = {each.window for each in shape.layers if each.window is not None}
    bases = {WHOLE if each.window is None else LOCAL: each.rotary for each in shape.layers}
    ropes = {kind: {"rope_type": "default", "rope_theta": bases.get(kind) or base} for kind, (base, _) in BASES.items()}
    names = {activation: name for name, activation in reversed(ACTIVATIONS.items())}
    if shape.activation not in names or (head is not None and head.activation not in names):
        raise Unsupported("the modernbert format has no name for an activation", where="this model")
    of_head: dict[str, Any] = {}
    if head is not None:
        pooling = next((name for name, reads in POOLING.items() if reads is head.reads), "cls")
        of_head = {"classifier_pooling": pooling, "classifier_dropout": head.dropout}
        of_head |= {"classifier_activation": names[head.activation], **head_keys(head)}
    return {
        "architectures": [architecture_of(shape, "ModernBert")],
        "model_type": "modernbert",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": len(shape.layers),
        "num_attention_heads": layer.heads,
        "intermediate_size": layer.ffn,
        "hidden_activation": names[shape.activation],
        "max_position_embeddings": shape.max_positions,
        "norm_eps": shape.norm_eps,
        "initializer_range": shape.initializer_range,
        "embedding_dropout": shape.dropout,
        "mlp_dropout": shape.dropout,
        "attention_dropout": shape.attention_dropout,
        "pad_token_id": shape.pad_token_id,
        "layer_types": [WHOLE if each.window is None else LOCAL for each in shape.layers],
        "local_attention": 2 * max(windows, default=64),
        "rope_parameters": ropes,
        **dict.fromkeys(BIASES, True),
        **of_head,
    }


def new_head(head: HeadShape, shape: ModelShape) -> HeadShape:
    """Return the head with ModernBERT's activation and norm."""
    return replace(head, activation=Activation.GELU, normed=True)


MODERNBERT = Family(
    name="modernbert",
    model_types=("modernbert",),
    shape_of=shape_of,
    config_of=config_of,
    new_head=new_head,
    layout_of=layout_of,
    names=Names(
        rows=(
            Row("embeddings.tok_embeddings.{p}", "embeddings.word.{p}"),
            Row("embeddings.norm.{p}", "embeddings.norm.{p}"),
            Row("layers.{i}.attn_norm.{p}", "layers.{i}.attention_norm.{p}"),
            Row("layers.{i}.attn.Wqkv.0.{p}", "layers.{i}.attention.query.{p}"),
            Row("layers.{i}.attn.Wqkv.1.{p}", "layers.{i}.attention.key.{p}"),
            Row("layers.{i}.attn.Wqkv.2.{p}", "layers.{i}.attention.value.{p}"),
            Row("layers.{i}.attn.Wo.{p}", "layers.{i}.attention.output.{p}"),
            Row("layers.{i}.mlp_norm.{p}", "layers.{i}.ffn_norm.{p}"),
            Row("layers.{i}.mlp.Wi.0.{p}", "layers.{i}.ffn.up.{p}"),
            Row("layers.{i}.mlp.Wi.1.{p}", "layers.{i}.ffn.gate.{p}"),
            Row("layers.{i}.mlp.Wo.{p}", "layers.{i}.ffn.down.{p}"),
            Row("final_norm.{p}", "final_norm.{p}"),
            Row("^head.dense.{p}", "head.dense.{p}", optional=True),
            Row("^head.norm.{p}", "head.norm.{p}", optional=True),
            Row("^classifier.{p}", "head.output.{p}", optional=True),
        ),
        ignored=(r"decoder\..*",),
        fused=(("attn.Wqkv", 3), ("mlp.Wi", 2)),
        prefixes=("model.", ""),
    ),
    prefix="model.",
)
