"""MPNet (Song et al. 2020): BERT's encoder without token types, with a bias for the distance between tokens.

The format has one table of biases for all layers. Here every layer has its own copy, so that heads can be cut out of
each; tables that differ cannot be written back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.bert_encoder import EMBEDDING_ROWS, bert_config, bert_shape
from models.errors import Unsupported
from models.family import ANSWERS, Config, Family
from models.shape import ModelShape, RelativeBias
from models.weights import Names, Row

# What MPNet's published code has as constants, whatever the config says.
PADDING, BUCKETS, MAX_DISTANCE = 1, 32, 128


def shape_of(config: Config) -> ModelShape:
    """Return the shape of an MPNet config.

    Raises:
        Unsupported: another number of buckets than its code computes, or another padding token than its positions count
            from.
    """
    buckets, padding = int(config.get("relative_attention_num_buckets", BUCKETS)), config.get("pad_token_id", PADDING)
    if buckets != BUCKETS or padding != PADDING:
        raise Unsupported(f"an mpnet model of {buckets} buckets with padding token {padding}", where="config.json")
    known = {**config, "type_vocab_size": 0}
    shape = bert_shape(known, family="mpnet", offset=PADDING + 1, type_vocab_size=0, pad_token_id=PADDING)
    return replace(shape, relative=RelativeBias(BUCKETS, MAX_DISTANCE))


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the MPNet config of a shape whose layers are all alike."""
    return bert_config(shape, architecture="MPNet") | {"relative_attention_num_buckets": BUCKETS}


MPNET = Family(
    name="mpnet",
    model_types=("mpnet",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(
        rows=(
            *(row for row in EMBEDDING_ROWS if "token_type" not in row.theirs),
            Row("encoder.relative_attention_bias.{p}", "layers.{i}.attention.relative.{p}"),
            Row("encoder.layer.{i}.attention.attn.q.{p}", "layers.{i}.attention.query.{p}"),
            Row("encoder.layer.{i}.attention.attn.k.{p}", "layers.{i}.attention.key.{p}"),
            Row("encoder.layer.{i}.attention.attn.v.{p}", "layers.{i}.attention.value.{p}"),
            Row("encoder.layer.{i}.attention.attn.o.{p}", "layers.{i}.attention.output.{p}"),
            Row("encoder.layer.{i}.attention.LayerNorm.{p}", "layers.{i}.attention_norm.{p}"),
            Row("encoder.layer.{i}.intermediate.dense.{p}", "layers.{i}.ffn.up.{p}"),
            Row("encoder.layer.{i}.output.dense.{p}", "layers.{i}.ffn.down.{p}"),
            Row("encoder.layer.{i}.output.LayerNorm.{p}", "layers.{i}.ffn_norm.{p}"),
            Row("^classifier.dense.{p}", "head.dense.{p}", optional=True),
            ANSWERS,
            Row("^classifier.out_proj.{p}", "head.output.{p}", optional=True, tokens=False),
            Row("^classifier.{p}", "head.output.{p}", optional=True, tokens=True),
        ),
        ignored=(r"lm_head\..*", r"(mpnet\.)?pooler\..*", r".*position_ids"),
        prefixes=("mpnet.", ""),
    ),
    prefix="mpnet.",
)
