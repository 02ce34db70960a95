"""DistilBERT (Sanh et al. 2019): BERT without token types, with a ReLU head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.bert_encoder import even_layers
from models.family import ANSWERS, Config, Family, architecture_of, head_keys, head_of
from models.kinds import Activation, member
from models.shape import HeadShape, ModelShape
from models.weights import Names, Row

ACTIVATIONS = {"gelu": Activation.GELU, "relu": Activation.RELU}

NAMES = Names(
    rows=(
        Row("embeddings.word_embeddings.{p}", "embeddings.word.{p}"),
        Row("embeddings.position_embeddings.{p}", "embeddings.position.{p}"),
        Row("embeddings.LayerNorm.{p}", "embeddings.norm.{p}"),
        Row("transformer.layer.{i}.attention.q_lin.{p}", "layers.{i}.attention.query.{p}"),
        Row("transformer.layer.{i}.attention.k_lin.{p}", "layers.{i}.attention.key.{p}"),
        Row("transformer.layer.{i}.attention.v_lin.{p}", "layers.{i}.attention.value.{p}"),
        Row("transformer.layer.{i}.attention.out_lin.{p}", "layers.{i}.attention.output.{p}"),
        Row("transformer.layer.{i}.sa_layer_norm.{p}", "layers.{i}.attention_norm.{p}"),
        Row("transformer.layer.{i}.ffn.lin1.{p}", "layers.{i}.ffn.up.{p}"),
        Row("transformer.layer.{i}.ffn.lin2.{p}", "layers.{i}.ffn.down.{p}"),
        Row("transformer.layer.{i}.output_layer_norm.{p}", "layers.{i}.ffn_norm.{p}"),
        Row("^pre_classifier.{p}", "head.dense.{p}", optional=True),
        ANSWERS,
        Row("^classifier.{p}", "head.output.{p}", optional=True),
    ),
    ignored=(r"vocab_(transform|layer_norm|projector)\..*", r".*position_ids"),
    prefixes=("distilbert.", ""),
)


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a DistilBERT config. Its sinusoidal positions are stored, so they are read as learned."""
    hidden = int(config["dim"])
    layers = even_layers(
        int(config["n_layers"]), hidden=hidden, heads=int(config["n_heads"]), ffn=int(config["hidden_dim"])
    )
    dropout = float(config.get("dropout", 0.1))
    of_head = float(config.get("seq_classif_dropout", 0.2))
    return ModelShape(
        family="distilbert",
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=layers,
        max_positions=int(config.get("max_position_embeddings", 512)),
        activation=member(Activation, str(config.get("activation", "gelu")), ACTIVATIONS, where="config.json"),
        norm_eps=1e-12,
        dropout=dropout,
        attention_dropout=float(config.get("attention_dropout", 0.1)),
        initializer_range=float(config.get("initializer_range", 0.02)),
        pad_token_id=int(config.get("pad_token_id") or 0),
        head=head_of(config, activation=Activation.RELU, dropout=of_head, token_dropout=dropout),
    )


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the DistilBERT config of a shape whose layers are all alike."""
    layer = shape.layers[0]
    return {
        "architectures": [architecture_of(shape, "DistilBert")],
        "model_type": "distilbert",
        "vocab_size": shape.vocab_size,
        "dim": shape.hidden_size,
        "n_layers": len(shape.layers),
        "n_heads": layer.heads,
        "hidden_dim": layer.ffn,
        "activation": shape.activation.value,
        "dropout": shape.dropout,
        "attention_dropout": shape.attention_dropout,
        "max_position_embeddings": shape.max_positions,
        "initializer_range": shape.initializer_range,
        "pad_token_id": shape.pad_token_id,
        "sinusoidal_pos_embds": False,
        **(head_keys(shape.head) if shape.head else {}),
        **({"seq_classif_dropout": shape.head.dropout} if shape.reads_first and shape.head else {}),
    }


def new_head(head: HeadShape, shape: ModelShape) -> HeadShape:
    """Return the head with DistilBERT's activation or, where it reads each token, the dropout of the layers: the config
    has no other.
    """
    return replace(head, dropout=shape.dropout) if head.tokens else replace(head, activation=Activation.RELU)


DISTILBERT = Family(
    name="distilbert",
    model_types=("distilbert",),
    shape_of=shape_of,
    config_of=config_of,
    new_head=new_head,
    names=NAMES,
    prefix="distilbert.",
)
