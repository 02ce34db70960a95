"""ELECTRA (Clark et al. 2020), its discriminator: BERT's encoder, narrower embedding tables, a two-layer head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.bert_encoder import ROWS, bert_config, bert_shape
from models.family import ANSWERS, Config, Family
from models.kinds import Activation
from models.shape import HeadShape, ModelShape
from models.weights import Names, Row


def shape_of(config: Config) -> ModelShape:
    """Return the shape of an ELECTRA config. Tables of the hidden size have no projection."""
    pad = int(config.get("pad_token_id") or 0)
    shape = bert_shape(
        config, family="electra", offset=0, type_vocab_size=2, pad_token_id=pad, head_activation=Activation.GELU
    )
    width = int(config.get("embedding_size", 128))
    return shape if width == shape.hidden_size else replace(shape, embedding_size=width)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the ELECTRA config of a shape whose layers are all alike."""
    return bert_config(shape, architecture="Electra") | {"embedding_size": shape.embedding_width}


def new_head(head: HeadShape, shape: ModelShape) -> HeadShape:
    """Return the head with ELECTRA's activation, where it reads the first token."""
    return head if head.tokens else replace(head, activation=Activation.GELU)


ELECTRA = Family(
    name="electra",
    model_types=("electra",),
    shape_of=shape_of,
    config_of=config_of,
    new_head=new_head,
    names=Names(
        rows=(
            *ROWS,
            Row("embeddings_project.{p}", "embeddings.projection.{p}"),
            Row("^classifier.dense.{p}", "head.dense.{p}", optional=True),
            ANSWERS,
            Row("^classifier.out_proj.{p}", "head.output.{p}", optional=True, tokens=False),
            Row("^classifier.{p}", "head.output.{p}", optional=True, tokens=True),
        ),
        ignored=(r"(discriminator_predictions|generator_predictions|generator_lm_head)\..*", r".*position_ids"),
        prefixes=("electra.", ""),
    ),
    prefix="electra.",
)
