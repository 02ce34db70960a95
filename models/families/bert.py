"""BERT (Devlin et al. 2019), and MiniLM, which is BERT."""

from __future__ import annotations

from typing import Any

from models.bert_encoder import ROWS, bert_config, bert_shape
from models.family import ANSWERS, Config, Family
from models.shape import ModelShape
from models.weights import Names, Row


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a BERT config."""
    pad = int(config.get("pad_token_id") or 0)
    return bert_shape(config, family="bert", offset=0, type_vocab_size=2, pad_token_id=pad)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the BERT config of a shape whose layers are all alike."""
    return bert_config(shape, architecture="Bert")


BERT = Family(
    name="bert",
    model_types=("bert",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(
        rows=(
            *ROWS,
            Row("pooler.dense.{p}", "head.dense.{p}", optional=True),
            ANSWERS,
            Row("^classifier.{p}", "head.output.{p}", optional=True),
        ),
        ignored=(r"cls\..*", r".*position_ids"),
        prefixes=("bert.", ""),
    ),
    prefix="bert.",
)
