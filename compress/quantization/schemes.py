"""Which modules are put into int8, and the quantized checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from compress.quantization.rounding import round_to_four_bits, round_to_four_bits_in_blocks
from compress.settings import QuantizeSettings
from models.checkpoint import Checkpoint
from models.errors import BadInput, nearest
from models.kinds import BLOCKS, Int8Form
from models.layers.blocked import round_to_blocks
from models.layers.packed import pack_rows, pack_rows_in_two_bits
from models.layers.quantized import ACTIVATION_LEVELS, WEIGHT_LIMIT, quantize_weight
from models.network import Network
from models.shape import ModelShape

WORDS = "embeddings.word"
PROJECTION = "output.projection"
WORD_FORMS = {"int8": Int8Form.TABLE, "int4": Int8Form.TABLE4, "int2": Int8Form.TABLE2}
FINEST = 32  # inputs of the smallest blocks of weights in 4 bits
MULTIPLIED = (Int8Form.DYNAMIC, Int8Form.STATIC, Int8Form.TABLE)  # forms that a product in int8 is taken of
ROUNDED = {Int8Form.TABLE4: pack_rows, Int8Form.TABLE2: pack_rows_in_two_bits}


class Range(NamedTuple):
    """What an activation may be, from `low` to `high`; zero is inside."""

    low: float
    high: float

    @staticmethod
    def around(low: float, high: float) -> Range:
        """Return the range widened to hold zero."""
        return Range(min(low, 0.0), max(high, 0.0))

    @property
    def scale(self) -> float:
        """Return the step between two uint8 levels."""
        width = self.high - self.low
        return width / ACTIVATION_LEVELS if width > 0 else 1.0

    @property
    def zero_point(self) -> int:
        """Return the uint8 level of zero."""
        return min(ACTIVATION_LEVELS, max(0, round(-self.low / self.scale)))


def linear_paths(shape: ModelShape) -> list[str]:
    """Return the module paths of all linear layers that have weights, in the network's order."""
    with torch.device("meta"):
        network = Network(shape)
    return [path for path, module in network.named_modules() if isinstance(module, nn.Linear) and module.weight.numel()]


def table_paths(shape: ModelShape) -> list[str]:
    """Return the module paths of the embedding tables that are learned, in the network's order."""
    with torch.device("meta"):
        network = Network(shape)
    return [path for path, module in network.named_modules() if isinstance(module, nn.Embedding)]


def forms_of(
    checkpoint: Checkpoint,
    *,
    activations: Literal["dynamic", "static"] = "dynamic",
    embeddings: Literal["int8", "int4", "int2", "float"] = "int8",
    keep_float: Iterable[str] = (),
) -> dict[str, Int8Form]:
    """Return module path -> form for everything that is to be in int8.

    With "int4" or "int2" the word table is kept in 4 or 2 bits; the other tables are small and stay in int8.
    `keep_float` are paths or patterns (`layers.0.*`), of linear layers and tables.

    Raises:
        BadInput: the model is quantized already, or a pattern fits no linear layer and no table.
    """
    if checkpoint.shape.int8:
        raise BadInput("the model is in int8 already", where="quantize")
    linear, tables = linear_paths(checkpoint.shape), table_paths(checkpoint.shape)
    known = [*linear, *tables]
    kept: set[str] = set()
    for pattern in keep_float:
        fitting = {path for path in known if fnmatchcase(path, pattern)}
        if not fitting:
            raise BadInput(
                f"keep_float names {pattern!r}, which fits no linear layer",
                where="quantize",
                fix=f"Names are like {linear[0]!r}.{nearest(pattern, known)}",
            )
        kept |= fitting
    forms = {path: Int8Form(activations) for path in linear if path not in kept}
    if embeddings != "float":
        forms |= {path: Int8Form.TABLE for path in tables if path not in kept}
    if WORDS in forms:
        forms[WORDS] = WORD_FORMS[embeddings]
    return forms


def form_in_blocks(settings: QuantizeSettings) -> Int8Form | None:
    """Return the form in blocks that what runs for every word may have, if any is asked for."""
    if settings.weights == "int8_blocks":
        return Int8Form.BYTES128
    return Int8Form(f"blocks{settings.block_size or FINEST}") if settings.weights == "int4_blocks" else None


def choices_in_blocks(
    shape: ModelShape, forms: Mapping[str, Int8Form], form: Int8Form
) -> dict[str, dict[str, Int8Form]]:
    """Return what may be in blocks, of this `form`, of what runs for every word that is written, most of it first:
    `all` of it, what makes logits of `words` alone, and nothing (`int8`). Each is module path -> form of everything.

    Layers that `forms` leaves in float stay there, and so does a word table that it has in another form than int8.

    Raises:
        BadInput: there is nothing that runs for every word.
    """
    words = [path for path in (PROJECTION, _written_with(shape)) if path and forms.get(path) in MULTIPLIED]
    layers = [path for path in linear_paths(shape) if path in forms and _runs_for_every_word(shape, path)]
    if not words and not layers:
        raise BadInput(
            "no layer in int8 runs for every word that is written",
            where="quantize.weights",
            fix="int4 halves the file of a model that writes nothing.",
        )
    choices = {"all": [*layers, *words], "words": words}
    blocked = {name: dict(forms) | dict.fromkeys(paths, form) for name, paths in choices.items() if paths}
    return blocked | {"int8": dict(forms)}


def _runs_for_every_word(shape: ModelShape, path: str) -> bool:
    """Return whether a linear layer does; keys and values of an encoder's states are computed once for a text."""
    if shape.output is None or path == PROJECTION:
        return False
    once = path.endswith((".cross.key", ".cross.value"))
    return not once and (shape.decoder is None or path.startswith("decoder."))


def _written_with(shape: ModelShape) -> str | None:
    """Return the path of the word table that words are written with, where one is."""
    return shape.written_table if shape.output is not None and shape.output.tied else None


def quantize(
    checkpoint: Checkpoint,
    forms: Mapping[str, Int8Form],
    ranges: Mapping[str, Range] | None = None,
    four_bits: Mapping[str, Tensor] | None = None,
    *,
    limit: int = WEIGHT_LIMIT,
) -> Checkpoint:
    """Return the checkpoint with these modules in int8; `ranges` holds what each STATIC module reads.

    Weights are symmetric with one scale per output channel, tables have one per row, and what is in blocks one for each
    of them. The linear layers that `four_bits` holds the curvature of, in blocks or not, use 16 of the 256 levels,
    -8..7; whatever else is multiplied with activations uses those from -`limit` to `limit`.

    Raises:
        BadInput: a STATIC module has no range.
    """
    given, curvatures = ranges or {}, four_bits or {}
    missing = [path for path, form in forms.items() if form is Int8Form.STATIC and path not in given]
    if missing:
        raise BadInput(f"no calibrated range for {', '.join(missing)}", where="quantize")
    weights: dict[str, Tensor] = dict(checkpoint.weights)
    tables = set(table_paths(checkpoint.shape))
    for path, form in forms.items():
        weight, scale, bias = (f"{path}.{name}" for name in ("weight", "weight_scale", "bias"))
        if path not in tables:  # an int8 layer always adds a bias, at no cost
            weights.setdefault(bias, torch.zeros(len(weights[weight])))
        if path in curvatures:
            rounded = (
                partial(round_to_four_bits_in_blocks, blocks=BLOCKS[form]) if form in BLOCKS else round_to_four_bits
            )
            found = rounded(weights[weight], weights[bias], curvatures[path])
            weights[weight], weights[scale], weights[bias] = found
        else:
            weights[weight], weights[scale] = _rounding(checkpoint.shape, path, form, limit)(weights[weight])
        if form is Int8Form.STATIC:
            weights[f"{path}.input_scale"] = torch.tensor(given[path].scale, dtype=torch.float32)
            weights[f"{path}.input_zero_point"] = torch.tensor(given[path].zero_point, dtype=torch.uint8)
    return replace(checkpoint, shape=checkpoint.shape.with_int8(dict(forms)), weights=weights)


def _rounding(shape: ModelShape, path: str, form: Int8Form, limit: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return what rounds the weights of a module; a table that is only looked up in uses all levels."""
    if form in BLOCKS:
        return partial(round_to_blocks, blocks=BLOCKS[form])
    if form in ROUNDED:
        return ROUNDED[form]
    multiplied = form is not Int8Form.TABLE or path == _written_with(shape)
    return partial(quantize_weight, limit=limit if multiplied else WEIGHT_LIMIT)
