"""Networks that are built new: their sizes, and what they read with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.settings import ArchitectureSettings
from models.bert_encoder import even_layers
from models.checkpoint import shape_of
from models.data import Table
from models.errors import BadInput
from models.files import digest_of, new_directory
from models.imaging import Imaging
from models.kinds import Activation
from models.reading import Reader
from models.shape import HeadShape, ModelShape
from models.tokenizing import Tokenizing, train_byte_level_bpe

Made = tuple[ModelShape, Reader]
NORM_EPS = 1e-5
DROPOUT = 0.1


def new_network(settings: ArchitectureSettings, table: Table, head: HeadShape, cache: Path) -> Made:
    """Return the shape of a network to be built new for the rows of `table`, and what it reads them with.

    Raises:
        BadInput: the heads do not divide the hidden size, or the family does not read such rows.
    """
    return _FAMILIES[settings.family](settings, table, head, cache)


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
        initializer_range=settings.initializer_range,
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
    tokenizing = _new_tokenizer(table, settings, cache)
    return text_shape(settings, tokenizing, head), tokenizing


def _new_tokenizer(table: Table, settings: ArchitectureSettings, cache: Path) -> Tokenizing:
    """Return a byte-level BPE tokenizer trained on the table's texts, from the cache if it was trained before."""
    key = digest_of([table.digest, len(table.texts), settings.vocab_size, settings.positions])
    directory = cache / "tokenizers" / key
    if not directory.exists():
        texts = table.texts if table.pairs is None else [*table.texts, *table.pairs]
        tokenizing = train_byte_level_bpe(texts, vocab_size=settings.vocab_size, max_length=settings.positions)
        with new_directory(directory) as partial:
            tokenizing.save(partial)
    return Tokenizing.load(directory)


def _of_images(settings: ArchitectureSettings, table: Table, head: HeadShape, cache: Path) -> Made:
    if table.images is None:
        raise BadInput(f"a {settings.family} reads images, and the rows are texts", where="train.architecture.family")
    shape = replace(shape_of(_vit_keys(settings), where="train.architecture"), head=head)
    assert shape.image is not None
    return shape, Imaging.of(shape.image)


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
        "initializer_range": settings.initializer_range,
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
