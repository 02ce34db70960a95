"""Marian (Junczys-Dowmunt et al. 2018) as `transformers` has it: BART's layers with sinusoidal positions, the two word
tables shared or apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models.bart_stacks import (
    COMPUTED_POSITIONS,
    IGNORED,
    WORD_ROWS,
    ZERO,
    bart_config,
    bart_shape,
    bias_axes,
    rows_without,
)
from models.family import Config, Family
from models.kinds import Positions
from models.shape import ModelShape
from models.weights import Names, Row

APART = "apart"


def shape_of(config: Config) -> ModelShape:
    """Return the shape of a Marian config."""
    shape = bart_shape(config, family="marian", positions=Positions.HALVES, pre_norm=False, embedding_norm=False)
    if config.get("share_encoder_decoder_embeddings", True) or shape.decoder is None:
        return shape
    words = int(config.get("decoder_vocab_size") or shape.vocab_size)
    return replace(shape, decoder=replace(shape.decoder, vocab_size=words))


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Return the Marian config of a shape whose layers are all alike in each stack."""
    tables = {
        "share_encoder_decoder_embeddings": shape.decoder is not None and shape.decoder.vocab_size is None,
        "decoder_vocab_size": shape.written_words,
    }
    return bart_config(shape, architecture="MarianMTModel") | tables


def form_of(shape: ModelShape) -> str | None:
    """Return whether the decoder has a word table of its own."""
    return APART if shape.decoder is not None and shape.decoder.vocab_size is not None else None


MARIAN = Family(
    name="marian",
    model_types=("marian",),
    shape_of=shape_of,
    config_of=config_of,
    axes_of=bias_axes,
    form_of=form_of,
    names=Names(
        rows=(
            Row("decoder.embed_tokens.{p}", "decoder.embeddings.word.{p}"),
            Row("encoder.embed_tokens.{p}", "embeddings.word.{p}", form=APART),
            *WORD_ROWS,
            *rows_without("embeddings.position", "embeddings.norm", "final_norm"),
        ),
        ignored=(*IGNORED, COMPUTED_POSITIONS),
        zero=ZERO,
        prefixes=("model.", ""),
    ),
    prefix="model.",
)
