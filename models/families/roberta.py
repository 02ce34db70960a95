"""RoBERTa (Liu et al. 2019): BERT's encoder, positions numbered after the padding token, a two-layer head."""

from __future__ import annotations

from typing import Any

from models.bert_encoder import ROWS, bert_config, bert_shape
from models.family import ANSWERS, Config, Family
from models.shape import ModelShape
from models.weights import Names, Row


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a RoBERTa config."""
    pad = config.get("pad_token_id")
    padding = 1 if pad is None else int(pad)
    return bert_shape(config, family="roberta", offset=padding + 1, type_vocab_size=1, pad_token_id=padding)


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the RoBERTa config of a shape whose layers are all alike."""
    return bert_config(shape, architecture="Roberta") | {"bos_token_id": 0, "eos_token_id": 2}


ROBERTA = Family(
    name="roberta",
    model_types=("roberta",),
    shape_of=shape_of,
    config_of=config_of,
    names=Names(
        rows=(
            *ROWS,
            Row("^classifier.dense.{p}", "head.dense.{p}", optional=True),
            ANSWERS,
            Row("^classifier.out_proj.{p}", "head.output.{p}", optional=True, tokens=False),
            Row("^classifier.{p}", "head.output.{p}", optional=True, tokens=True),
        ),
        ignored=(r"lm_head\..*", r"(roberta\.)?pooler\..*", r".*position_ids"),
        prefixes=("roberta.", ""),
    ),
    prefix="roberta.",
)
