"""The encoder that BERT published and other families share: its settings and its names."""

from __future__ import annotations

from typing import Any

from models.errors import BadInput, Unsupported
from models.family import Config, architecture_of, head_keys, head_of
from models.kinds import Activation, member
from models.shape import LayerShape, ModelShape
from models.shape_problems import MAX_LAYERS
from models.weights import Row

ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_new": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
}

EMBEDDING_ROWS = (
    Row("embeddings.word_embeddings.{p}", "embeddings.word.{p}"),
    Row("embeddings.position_embeddings.{p}", "embeddings.position.{p}"),
    Row("embeddings.token_type_embeddings.{p}", "embeddings.token_type.{p}"),
    Row("embeddings.LayerNorm.{p}", "embeddings.norm.{p}"),
)
ROWS = (
    *EMBEDDING_ROWS,
    Row("encoder.layer.{i}.attention.self.query.{p}", "layers.{i}.attention.query.{p}"),
    Row("encoder.layer.{i}.attention.self.key.{p}", "layers.{i}.attention.key.{p}"),
    Row("encoder.layer.{i}.attention.self.value.{p}", "layers.{i}.attention.value.{p}"),
    Row("encoder.layer.{i}.attention.output.dense.{p}", "layers.{i}.attention.output.{p}"),
    Row("encoder.layer.{i}.attention.output.LayerNorm.{p}", "layers.{i}.attention_norm.{p}"),
    Row("encoder.layer.{i}.intermediate.dense.{p}", "layers.{i}.ffn.up.{p}"),
    Row("encoder.layer.{i}.output.dense.{p}", "layers.{i}.ffn.down.{p}"),
    Row("encoder.layer.{i}.output.LayerNorm.{p}", "layers.{i}.ffn_norm.{p}"),
)


def bert_shape(
    config: Config,
    *,
    family: str,
    offset: int,
    type_vocab_size: int,
    pad_token_id: int,
    head_activation: Activation = Activation.TANH,
) -> ModelShape:
    """Return the shape of a config with BERT's keys, of which `type_vocab_size` may be absent; then it is this.

    Raises:
        Unsupported: relative positions, or a decoder.
        BadInput: a width that the heads do not divide, or an unknown activation.
    """
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise Unsupported(f"position_embedding_type {config['position_embedding_type']!r}", where="config.json")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise Unsupported(f"a {family} model used as decoder", where="config.json")
    dropout = float(config.get("hidden_dropout_prob", 0.1))
    of_head = config.get("classifier_dropout")
    head_dropout = dropout if of_head is None else float(of_head)
    return ModelShape(
        family=family,
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        layers=even_layers(
            int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            ffn=int(config["intermediate_size"]),
        ),
        max_positions=int(config.get("max_position_embeddings", 512)),
        position_offset=offset,
        type_vocab_size=int(config.get("type_vocab_size", type_vocab_size)),
        activation=member(Activation, str(config.get("hidden_act", "gelu")), ACTIVATIONS, where="config.json"),
        norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        dropout=dropout,
        attention_dropout=float(config.get("attention_probs_dropout_prob", 0.1)),
        initializer_range=float(config.get("initializer_range", 0.02)),
        pad_token_id=pad_token_id,
        head=head_of(config, activation=head_activation, dropout=head_dropout, token_dropout=head_dropout),
    )


def even_layers(count: int, *, hidden: int, heads: int, ffn: int) -> tuple[LayerShape, ...]:
    """Return `count` equal layers whose heads divide the hidden size.

    Raises:
        BadInput: they do not divide it, or there are more layers than any model has.
    """
    if heads < 1 or hidden % heads:
        raise BadInput(f"hidden size {hidden} is not a multiple of {heads} heads", where="config.json")
    if not 0 <= count <= MAX_LAYERS:
        raise BadInput(f"{count} layers, and no encoder has more than {MAX_LAYERS}", where="config.json")
    return (LayerShape(heads=heads, head_size=hidden // heads, ffn=ffn),) * count


def encoder_keys(shape: ModelShape, *, architecture: str) -> dict[str, Any]:
    """Return the keys that configs of BERT and of ViT share, of a shape whose layers are all alike.

    Raises:
        Unsupported: an activation that these configs have no name for.
    """
    layer = shape.layers[0]
    names = [name for name, activation in ACTIVATIONS.items() if activation is shape.activation]
    if not names:
        raise Unsupported(f"the {shape.family} format has no name for {shape.activation.value}", where="this model")
    return {
        "architectures": [architecture_of(shape, architecture)],
        "model_type": shape.family,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": len(shape.layers),
        "num_attention_heads": layer.heads,
        "intermediate_size": layer.ffn,
        "hidden_act": names[0],
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": shape.attention_dropout,
        "layer_norm_eps": shape.norm_eps,
        "initializer_range": shape.initializer_range,
    }


def bert_config(shape: ModelShape, *, architecture: str) -> dict[str, Any]:
    """Return the config with BERT's keys of a shape whose layers are all alike.

    Raises:
        Unsupported: an activation that BERT's configs have no name for.
    """
    return {
        **encoder_keys(shape, architecture=architecture),
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_positions,
        "type_vocab_size": shape.type_vocab_size,
        "pad_token_id": shape.pad_token_id,
        "position_embedding_type": "absolute",
        **({"classifier_dropout": shape.head.dropout, **head_keys(shape.head)} if shape.head else {}),
    }
