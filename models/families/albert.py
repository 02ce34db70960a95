"""ALBERT (Lan et al. 2020): narrower embedding tables, and groups of layers that share their weights.

Here every layer has its own copy, so that each can be pruned and trained by itself. What is written has as many groups
as layers, which the format allows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.bert_encoder import EMBEDDING_ROWS, bert_config, bert_shape
from models.errors import BadInput, Unsupported
from models.family import ANSWERS, Config, Family
from models.shape import ModelShape
from models.weights import Layout, Names, Row

LAYER = "encoder.albert_layer_groups.{g}.albert_layers.0"


def shape_of(config: Config) -> ModelShape:
    """Return the shape of an ALBERT config. The projection is there at every width."""
    if int(config.get("inner_group_num", 1)) != 1:
        raise Unsupported(f"inner_group_num {config['inner_group_num']}", where="config.json")
    layout_of(config)
    absent = {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    known = {**absent, **config, "classifier_dropout": config.get("classifier_dropout_prob", 0.1)}
    pad = int(config.get("pad_token_id") or 0)
    shape = bert_shape(known, family="albert", offset=0, type_vocab_size=2, pad_token_id=pad)
    return replace(shape, embedding_size=int(config.get("embedding_size", 128)))


def layout_of(config: Config) -> Layout:
    """Return how many groups of layers have weights of their own.

    Raises:
        BadInput: none.
    """
    groups = int(config.get("num_hidden_groups", 1))
    if groups < 1:
        raise BadInput(f"num_hidden_groups is {groups}", where="config.json")
    return Layout(groups)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the ALBERT config of a shape whose layers are all alike, each a group of its own."""
    config = bert_config(shape, architecture="Albert")
    of_head = {} if shape.head is None else {"classifier_dropout_prob": config.pop("classifier_dropout")}
    sizes = {"embedding_size": shape.embedding_width, "num_hidden_groups": len(shape.layers), "inner_group_num": 1}
    return config | of_head | sizes


ALBERT = Family(
    name="albert",
    model_types=("albert",),
    shape_of=shape_of,
    config_of=config_of,
    layout_of=layout_of,
    names=Names(
        rows=(
            *EMBEDDING_ROWS,
            Row("encoder.embedding_hidden_mapping_in.{p}", "embeddings.projection.{p}"),
            Row(f"{LAYER}.attention.query.{{p}}", "layers.{i}.attention.query.{p}"),
            Row(f"{LAYER}.attention.key.{{p}}", "layers.{i}.attention.key.{p}"),
            Row(f"{LAYER}.attention.value.{{p}}", "layers.{i}.attention.value.{p}"),
            Row(f"{LAYER}.attention.dense.{{p}}", "layers.{i}.attention.output.{p}"),
            Row(f"{LAYER}.attention.LayerNorm.{{p}}", "layers.{i}.attention_norm.{p}"),
            Row(f"{LAYER}.ffn.{{p}}", "layers.{i}.ffn.up.{p}"),
            Row(f"{LAYER}.ffn_output.{{p}}", "layers.{i}.ffn.down.{p}"),
            Row(f"{LAYER}.full_layer_layer_norm.{{p}}", "layers.{i}.ffn_norm.{p}"),
            Row("pooler.{p}", "head.dense.{p}", optional=True),
            ANSWERS,
            Row("^classifier.{p}", "head.output.{p}", optional=True),
        ),
        ignored=(r"(predictions|sop_classifier)\..*", r".*position_ids"),
        prefixes=("albert.", ""),
    ),
    prefix="albert.",
)
