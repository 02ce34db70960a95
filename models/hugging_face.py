"""The weights of a directory: safetensors in one file or several, and those of Hugging Face by our names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import BadFile, Unsupported
from models.family import Family
from models.files import inside, read_object
from models.fused import in_parts
from models.kinds import Positions
from models.layers.embeddings import SinusoidalPositions
from models.network import Network
from models.sentence_transformers import dense_directory, encoder_directory
from models.shape import HeadShape, ModelShape

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "model.ckpt", "tf_model.h5")
CONVERT = (
    "Only safetensors are read, because pickled files can run code. Convert it where you trust it: "
    "AutoModelForSequenceClassification.from_pretrained(SOURCE).save_pretrained(NEW)."
)
# What leads to an embedding, and what sentence-transformers calls it.
PROJECTION = {"head.projection.weight": "linear.weight", "head.projection.bias": "linear.bias"}
WORDS, OWN_WORDS, WRITTEN_WORDS = (
    f"{module}.weight" for module in ("embeddings.word", "decoder.embeddings.word", "output.projection")
)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Return every tensor of a directory's safetensors, floats as float32.

    Raises:
        BadFile: a file is missing or broken, or holds values that are not finite.
        Unsupported: weights only as pickle.
    """
    files = [directory / WEIGHTS_FILE]
    if not files[0].exists() and (directory / INDEX_FILE).exists():
        shards = read_object(directory / INDEX_FILE).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise BadFile("does not say which file holds which weight", where=str(directory / INDEX_FILE))
        files = [inside(directory, name) for name in sorted(set(shards.values()))]
    weights: dict[str, Tensor] = {}
    for file in files:
        if not file.exists():
            pickled = [name for name in PICKLED if (directory / name).exists()]
            if pickled:
                raise Unsupported(f"holds its weights only as {pickled[0]}", where=str(directory), fix=CONVERT)
            raise BadFile("there is no such file", where=str(file))
        try:
            weights.update(load_file(str(file)))
        except (SafetensorError, OSError, ValueError) as error:
            raise BadFile(f"not a whole safetensors file ({error})", where=str(file), fix="Fetch it again.") from None
    for name, value in weights.items():
        if value.is_floating_point():
            weights[name] = value.float()
            # A NaN is carried into both bounds, which is cheaper than to look at every value for itself.
            if value.numel() and not all(bound.isfinite() for bound in torch.aminmax(weights[name])):
                raise BadFile(f"weight {name} holds values that are not finite", where=str(directory))
    return weights


def read_hugging_face(
    directory: Path, shape: ModelShape, family: Family, *, wanted: HeadShape | None
) -> tuple[ModelShape, dict[str, Tensor]]:
    """Return the weights of a directory by our names, and the shape with what only they can say: whether words are
    written by the table that they are read from, whatever the config says (as `transformers` decides it). `wanted` is a
    head that a bare encoder gets, whose weights may be there.

    Raises:
        BadFile: a file is missing or broken, or the weights are not of this shape.
        Unsupported: weights only as pickle.
    """
    # A bare encoder may still hold a pooler that a new head starts from, so its names are read too.
    reading = shape if shape.labels or shape.output else replace(shape, head=wanted or shape.head)
    if shape.output is not None:
        reading = replace(shape, output=replace(shape.output, tied=False))
    with torch.device("meta"):
        names = Network(reading).state_dict()
    encoder = encoder_directory(directory)
    layout = family.layout_of(read_object(encoder / "config.json"))
    parts = {
        name: part
        for fused, value in read_tensors(encoder).items()
        for name, part in in_parts(fused, value, family.names)
    }
    wanted_there = [name for name in names if name not in PROJECTION]
    found = family.names.read(parts, wanted_there, where=str(encoder), layout=layout, same=_same)
    if reading.head is not None and reading.head.projected:
        found |= _read_projection(directory, width=reading.head.width)
    absent = [name for name in names if layout.is_zero(name) or (name not in found and family.names.is_zero(name))]
    own = _unshared({**found, **{name: torch.zeros(names[name].shape) for name in absent}})
    for name, axes in family.axes_of(reading).items():
        if name in own and own[name].shape == axes:  # else it is refused as any weight of another size
            own[name] = own[name].reshape(names[name].shape)
    return _tied(shape, own)


def _read_projection(directory: Path, *, width: int) -> dict[str, Tensor]:
    """Return the linear layer behind the pooling; one without a bias has zeros."""
    dense = dense_directory(directory)
    theirs = {"linear.bias": torch.zeros(width), **({} if dense is None else read_tensors(dense))}
    return {ours: theirs[name] for ours, name in PROJECTION.items() if name in theirs}


def _tied(shape: ModelShape, weights: dict[str, Tensor]) -> tuple[ModelShape, dict[str, Tensor]]:
    if shape.output is None or not shape.output.tied:
        return shape, weights
    table = OWN_WORDS if OWN_WORDS in weights else WORDS
    same = WRITTEN_WORDS not in weights or (table in weights and _same(weights[WRITTEN_WORDS], weights[table]))
    if not same:
        return replace(shape, output=replace(shape.output, tied=False)), weights
    return shape, {name: value for name, value in weights.items() if name != WRITTEN_WORDS}


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)


def position_tables(family: Family, shape: ModelShape) -> dict[str, Tensor]:
    """Return the computed positions (positions, width) that the family's format holds, by its names."""
    halves = shape.positions is Positions.HALVES
    return {
        name: SinusoidalPositions(shape.max_positions, shape.embedding_width, halves=halves).weight
        for name in family.position_tables
    }


def _unshared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, each in memory of its own: what layers share in a format came as one tensor."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, value in weights.items():
        own[name] = value.clone() if id(value) in seen else value
        seen.add(id(value))
    return own
