"""Networks that are built new: their sizes, and what they read with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from compress.settings import ArchitectureSettings
from models.bert_encoder import even_layers
from models.checkpoint import shape_of
from models.data import Table
from models.errors import BadInput
from models.files import digest_of, new_directory
from models.generation_settings import Generation
from models.imaging import Imaging
from models.kinds import Activation, Positions
from models.new_tokenizer import BARE, ENDED, ROBERTA, Form, train_byte_level_bpe
from models.reading import Reader
from models.shape import DecoderShape, HeadShape, LayerShape, ModelShape, OutputShape
from models.tokenizing import Tokenizing

PADDING, END = 1, 2  # of the tokenizers that are made here
NORM_EPS = 1e-5
DROPOUT = 0.1


class Made(NamedTuple):
    """A network to be built new: its shape, what it reads with, and how it writes where it does."""

    shape: ModelShape
    reader: Reader
    generation: Generation | None = None


class Writer(NamedTuple):
    """How a family that writes behind a source places its tokens and norms."""

    positions: Positions
    offset: int = 0
    pre_norm: bool = False
    embedding_norm: bool = False


WRITERS = {
    "marian": Writer(Positions.HALVES),
    "pegasus": Writer(Positions.HALVES, pre_norm=True),
    "bart": Writer(Positions.LEARNED, offset=2, embedding_norm=True),
}


def new_network(settings: ArchitectureSettings, table: Table, head: HeadShape | None, cache: Path) -> Made:
    """Return a network to be built new for the rows of `table`; without a head it is one that writes.

    Raises:
        BadInput: the heads do not divide the hidden size, or the family does not read such rows.
    """
    if head is None:
        return _that_writes(settings, table, cache)
    if settings.family not in _FAMILIES:
        raise BadInput(f"a {settings.family} writes, and has no head", where="train.architecture.family")
    return _FAMILIES[settings.family](settings, table, head, cache)


def deviation(settings: ArchitectureSettings, *, scaled: bool = False) -> float:
    """Return the deviation of the weights that are drawn. If none is named it is 0.02 (Devlin et al. 2019) or, `scaled`
    by the width, near to Glorot's: what word vectors behind a source are drawn from (Vaswani et al. 2017), and what
    images are learned with sooner.
    """
    named = settings.initializer_range
    return named if named is not None else settings.hidden_size**-0.5 if scaled else 0.02


def decoder_layers(settings: ArchitectureSettings, layers: tuple[LayerShape, ...]) -> tuple[LayerShape, ...]:
    """Return the layers that write behind an encoder of `layers`: as many, if no number is named."""
    written = replace(layers[0], causal=True, cross_heads=settings.heads)
    return (written,) * (settings.decoder_layers or len(layers))


def text_shape(settings: ArchitectureSettings, tokenizing: Tokenizing, head: HeadShape) -> ModelShape:
    """Return the shape of a network to be built new for the tokens of a tokenizer.

    Raises:
        BadInput: the heads do not divide the hidden size.
    """
    pad = tokenizing.pad_token_id
    offset = pad + 1 if settings.family == "roberta" else 0
    return ModelShape(
        family=settings.family,
        vocab_size=max(tokenizing.vocab_size, tokenizing.highest_id + 1),
        hidden_size=settings.hidden_size,
        layers=even_layers(settings.layers, hidden=settings.hidden_size, heads=settings.heads, ffn=settings.ffn),
        max_positions=settings.positions + offset,
        position_offset=offset,
        type_vocab_size=1 if settings.family == "roberta" else 2,
        activation=Activation(settings.activation),
        norm_eps=NORM_EPS,
        initializer_range=deviation(settings),
        pad_token_id=pad,
        head=replace(head, dropout=DROPOUT),
    )


def _of_texts(settings: ArchitectureSettings, table: Table, head: HeadShape, cache: Path) -> Made:
    if table.images is not None:
        raise BadInput(
            f"a {settings.family} reads texts, and the rows are images",
            where="train.architecture.family",
            fix=f"Known of images: {', '.join(READ_IMAGES)}.",
        )
    tokenizing = _new_tokenizer(table, settings, cache, ROBERTA)
    return Made(text_shape(settings, tokenizing, head), tokenizing)


def _that_writes(settings: ArchitectureSettings, table: Table, cache: Path) -> Made:
    """Return a network that writes: behind a source where the rows say what, else on from what it reads."""
    writer, behind = WRITERS.get(settings.family), table.labels is not None
    if behind is not (writer is not None) or (writer is None and settings.family != "gpt2"):
        known = ", ".join(WRITERS) if behind else "gpt2"
        raise BadInput(
            f"a {settings.family} does not write such rows", where="train.architecture.family", fix=f"Known: {known}."
        )
    tokenizing = _new_tokenizer(table, settings, cache, BARE if writer is None else ENDED)
    layers = even_layers(settings.layers, hidden=settings.hidden_size, heads=settings.heads, ffn=settings.ffn)
    offset = 0 if writer is None else writer.offset
    shape = ModelShape(
        family=settings.family,
        vocab_size=max(tokenizing.vocab_size, tokenizing.highest_id + 1),
        hidden_size=settings.hidden_size,
        layers=layers if writer else tuple(replace(layer, causal=True) for layer in layers),
        max_positions=settings.positions + offset,
        position_offset=offset,
        positions=Positions.LEARNED if writer is None else writer.positions,
        activation=Activation(settings.activation),
        norm_eps=NORM_EPS,
        pre_norm=writer is None or writer.pre_norm,
        initializer_range=deviation(settings, scaled=writer is not None),
        pad_token_id=PADDING,
        decoder=None if writer is None else DecoderShape(decoder_layers(settings, layers)),
        output=OutputShape(bias=writer is not None),
        embedding_scale=math.sqrt(settings.hidden_size) if writer else 1.0,
        embedding_norm=writer is not None and writer.embedding_norm,
    )
    generation = Generation(
        start=None if writer is None else PADDING,
        end=(END,),
        max_tokens=settings.positions - 1,
        beams=1 if writer is None else settings.beams,
    )
    return Made(shape, tokenizing, generation)


def _new_tokenizer(table: Table, settings: ArchitectureSettings, cache: Path, form: Form) -> Tokenizing:
    """Return a byte-level BPE tokenizer trained on the table's texts, those to be written too, from the cache if it was
    trained before.
    """
    written = form is ENDED
    key = digest_of(
        [table.digest, len(table.texts), settings.vocab_size, settings.positions, *([form] if form != ROBERTA else [])]
    )
    directory = cache / "tokenizers" / key
    if not directory.exists():
        texts = table.texts if table.pairs is None else [*table.texts, *table.pairs]
        if written:
            texts = [*texts, *(text for row in table.labels or () if isinstance(row, tuple) for text in row)]
        tokenizing = train_byte_level_bpe(
            texts, vocab_size=settings.vocab_size, max_length=settings.positions, form=form
        )
        with new_directory(directory) as partial:
            tokenizing.save(partial)
    return Tokenizing.load(directory)


def _of_images(settings: ArchitectureSettings, table: Table, head: HeadShape, cache: Path) -> Made:
    if table.images is None:
        raise BadInput(f"a {settings.family} reads images, and the rows are texts", where="train.architecture.family")
    shape = replace(shape_of(_vit_keys(settings), where="train.architecture"), head=head)
    assert shape.image is not None
    return Made(shape, Imaging.of(shape.image))


def _vit_keys(settings: ArchitectureSettings) -> dict[str, Any]:
    """Return the settings in the keys of ViT's configs, which those of the other families of images have too."""
    return {
        "model_type": settings.family,
        "hidden_size": settings.hidden_size,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "intermediate_size": settings.ffn,
        "hidden_act": settings.activation,
        "layer_norm_eps": NORM_EPS,
        "initializer_range": deviation(settings, scaled=True),
        "image_size": settings.image_size,
        "patch_size": settings.patch_size,
        "num_channels": settings.channels,
        "num_detection_tokens": settings.detection_tokens,
        "use_mid_position_embeddings": False,
    }


_FAMILIES: Mapping[str, Callable[[ArchitectureSettings, Table, HeadShape, Path], Made]] = {
    "bert": _of_texts,
    "roberta": _of_texts,
    "vit": _of_images,
    "yolos": _of_images,
}
READ_IMAGES = tuple(name for name, make in _FAMILIES.items() if make is _of_images)
