"""A model as files: our own directory, and Hugging Face directories, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.differences import differences, uneven
from models.errors import BadFile, BadInput, Unsupported, nearest
from models.families import FAMILIES
from models.family import Family
from models.files import read_object, write_json
from models.fused import joined
from models.generation_settings import (
    GENERATION_CONFIG,
    GENERATION_FILE,
    Generation,
    read_generation,
    token_keys,
    written_generation,
)
from models.hub import local_directory
from models.hugging_face import PROJECTION, WEIGHTS_FILE, position_tables, read_hugging_face, read_tensors
from models.kinds import Biases
from models.network import Network
from models.provenance import Provenance, provenance_of
from models.reading import Reader, load_reader, tokenizer_of
from models.sentence_transformers import embedding_head, encoder_directory, write_modules
from models.shape import HeadShape, ModelShape
from models.tensor_file import write_tensors
from models.tokenizing import Tokenizing

FORMAT = 1
SHAPE_FILE = "model.json"


@final
@dataclass(frozen=True)
class Checkpoint:
    """A trained model: its shape, its weights by the names of `Network.state_dict`, what it reads with, and of one that
    writes how it does so. `source` is the checkpoint that it was made from, first of all, whose licence it keeps.
    """

    shape: ModelShape
    weights: Mapping[str, Tensor]
    reader: Reader
    generation: Generation | None = None
    source: Provenance = Provenance()

    @property
    def tokenizing(self) -> Tokenizing:
        """Return the tokenizer.

        Raises:
            BadInput: the model reads something else than texts.
        """
        return tokenizer_of(self.reader)

    def network(self) -> Network:
        """Return a fresh network with these weights, in evaluation mode; changing it does not change the checkpoint."""
        with torch.device("meta"):
            network = Network(self.shape)
        network.load_state_dict({name: weight.clone() for name, weight in self.weights.items()}, assign=True)
        return network.eval()

    def of(self, network: Network) -> Checkpoint:
        """Return a checkpoint of `network` that reads with the same."""
        weights = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
        return replace(self, shape=network.shape, weights=weights)

    @property
    def config(self) -> dict[str, Any] | None:
        """Return what `config.json` of Hugging Face says of the model, its int8 left out; None where the family's
        format cannot say its sizes.
        """
        try:
            told = _config(_family(self.shape.family), self.shape.with_int8({}))
        except Unsupported:
            return None
        return told if self.generation is None else told | token_keys(self.generation)

    @property
    def loader_config(self) -> dict[str, Any] | None:
        """Return what `config.json` says beside a graph, for loaders that take classes, labels and the sizes of caches
        from it: as `config`, and of an encoder that the format cannot say, with the sizes of its first layer. None
        where the format has no words for it at all.
        """
        family, told = _family(self.shape.family), self.config
        if told is None and self.generation is None and self.shape.layers:
            try:
                told = family.config_of(self.shape)
            except (BadInput, Unsupported):
                return None
        if told is None or family.loaded_as is None:
            return told
        kind, architecture = family.loaded_as
        return told | {"model_type": kind, "architectures": [architecture]}

    def with_biases(self) -> Checkpoint:
        """Return the same model with a bias of zero in every linear layer of its blocks that has none, for what writes
        into biases.
        """
        shape = replace(self.shape, biases=Biases.ALL)
        with torch.device("meta"):
            slots = Network(shape).state_dict()
        zeros = {name: torch.zeros(slot.shape) for name, slot in slots.items() if name not in self.weights}
        return replace(self, shape=shape, weights={**self.weights, **zeros})

    @property
    def parameters(self) -> int:
        """Return the number of weights, whatever they are kept in, scales left out."""
        with torch.device("meta"):
            slots = Network(self.shape.with_int8({})).state_dict()
        return sum(slot.numel() for name, slot in slots.items() if name.endswith(("weight", "bias")))

    def projection(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return `weight` (width, hidden) and `bias` (width) of what leads to an embedding, where there is one."""
        return {
            name.rpartition(".")[2]: self.weights[name].contiguous().numpy()
            for name in PROJECTION
            if name in self.weights
        }

    @staticmethod
    def load(source: str | Path, *, head: HeadShape | None = None, seed: int = 0) -> Checkpoint:
        """Return the checkpoint in a directory (ours or Hugging Face's) or behind a hub name `org/name`.

        With `head` the model gets one for its labels and its task: the checkpoint's own where it fits, else a new one
        of the family's form, drawn from `seed`.

        Raises:
            BadInput: there is no such directory or hub model.
            BadFile: a file is missing, broken, or does not belong to the model.
            Unsupported: a family that is not ours, or weights only as pickle.
        """
        directory = local_directory(source)
        shape = read_shape(directory)
        head = None if head is None else _family(shape.family).new_head(head, shape)
        if (directory / SHAPE_FILE).exists():
            weights = read_tensors(directory)
        else:
            shape, weights = read_hugging_face(directory, shape, _family(shape.family), wanted=head)
        if head is not None:
            own = shape.head
            fits = own is not None and bool(own.labels) and (own.tokens, own.boxes) == (head.tokens, head.boxes)
            alike = own if own is not None and fits else head
            shape = replace(shape, head=replace(alike, labels=head.labels, task=head.task))
        weights = _complete(shape, weights, new_head=head is not None, seed=seed, where=str(directory))
        reader = load_reader(encoder_directory(directory), shape)
        problem = reader.problem(shape)
        if problem is not None:
            raise BadFile(problem, where=str(directory), fix="Use what the model was trained with.")
        return Checkpoint(shape, weights, reader, _generation(directory, shape), _source(str(source), directory))

    @staticmethod
    def new(shape: ModelShape, reader: Reader, *, seed: int, generation: Generation | None = None) -> Checkpoint:
        """Return an untrained model, its weights drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(shape)
        return Checkpoint(shape, {}, reader, generation).of(network)

    def save(self, directory: Path) -> None:
        """Write our files into an existing directory."""
        told = {"source": self.source.metadata, "not_for_hugging_face": self.refused_by_hugging_face()}
        write_json(directory / SHAPE_FILE, {"format": FORMAT, **told, "shape": self.shape.to_json()})
        write_tensors(directory / WEIGHTS_FILE, self.weights)
        if self.generation is not None:
            write_json(directory / GENERATION_FILE, self.generation.to_json())
        self.reader.save(directory)

    def refused_by_hugging_face(self) -> str | None:
        """Return why `save_hugging_face` refuses this model; None where it writes it."""
        try:
            self._as_hugging_face()
        except (BadFile, Unsupported) as error:
            return error.what
        return None

    def save_hugging_face(self, directory: Path) -> None:
        """Write config, weights and reader as `transformers` reads them, into an existing directory; of a model that
        gives embeddings also what sentence-transformers reads.

        Raises:
            Unsupported: the family's format cannot say this shape (pruned, quantized, or another norm: what it cannot
                say is named), or has one weight for what differs here.
        """
        config, names = self._as_hugging_face()
        if self.generation is not None:
            config |= token_keys(self.generation)
            told = written_generation(self.generation, pad=self.shape.pad_token_id)
            write_json(directory / GENERATION_CONFIG, told)
        write_json(directory / "config.json", config)
        family = _family(self.shape.family)
        tensors = joined(family.names, names) | position_tables(family, self.shape)
        write_tensors(directory / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
        write_modules(directory, self.shape, self.projection())
        self.reader.shipped(token_types=self.shape.type_vocab_size > 0).save(directory)

    def _as_hugging_face(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config and weights in the family's own format, what is fused there still in parts; raises as
        `save_hugging_face`.
        """
        family = _family(self.shape.family)
        embeds = self.shape.head is not None and not self.shape.labels
        shape = replace(self.shape, head=None) if embeds else self.shape
        config, axes, names_of = _config(family, shape), family.axes_of(shape), family.names
        held = {
            name: value.reshape(axes.get(name, value.shape))
            for name, value in self.weights.items()
            if name not in PROJECTION and (names_of.is_named(name) or not names_of.is_zero(name) or value.any())
        }
        return config, names_of.write(
            held,
            prefix=family.prefix if shape.head or shape.output else "",
            tokens=shape.answers_tokens,
            task=shape.head.task if shape.head else None,
            form=family.form_of(shape),
            same=torch.equal,
        )


def read_shape(directory: Path) -> ModelShape:
    """Return the shape that a checkpoint directory states; its weights stay unread.

    Raises:
        BadFile: no description of a model, or one that lacks something.
        Unsupported: a family that is not ours.
    """
    if (directory / SHAPE_FILE).exists():
        return _our_shape(directory)
    encoder = encoder_directory(directory)
    shape = shape_of(read_object(encoder / "config.json"), where=str(encoder / "config.json"))
    head = embedding_head(directory, hidden_size=shape.hidden_size)
    return shape if head is None else replace(shape, head=head)


def shape_of(config: Mapping[str, Any], *, where: str) -> ModelShape:
    """Return the shape that a Hugging Face config states; `where` names it. Raises as `read_shape`."""
    try:
        return _family_of(config, where).shape_of(config)
    except KeyError as error:
        raise BadFile(f"lacks the setting {error}", where=where) from None
    except (TypeError, ValueError) as error:
        raise BadFile(f"has a setting of the wrong type ({error})", where=where) from None


def _family(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def _config(family: Family, shape: ModelShape) -> dict[str, Any]:
    """Return the config that says exactly this shape.

    Raises:
        Unsupported: the family's format cannot; what it cannot say is named.
    """
    if shape.layers and (shape.decoder is None or shape.decoder.layers):
        try:
            config = family.config_of(shape)
            back = family.shape_of(config)
            if back.output is not None and shape.output is not None:  # no format says what it is that is written
                back = replace(back, output=replace(back.output, task=shape.output.task))
        except (BadInput, Unsupported) as error:
            unsaid = uneven(shape) or error.what
        else:
            if back == shape:
                return config
            unsaid = differences(shape, back)
    else:
        unsaid = "it has no layers"
    raise Unsupported(
        f"the {family.name} format of Hugging Face cannot say what this model is: {unsaid}",
        where="this model",
        fix="Keep it in our own format, or export it to ONNX.",
    )


def _family_of(config: Mapping[str, Any], where: str) -> Family:
    kind = str(config.get("model_type", ""))
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = sorted(kind for family in FAMILIES for kind in family.model_types)
    raise Unsupported(
        f"model_type {kind!r} is not a supported family",
        where=where,
        fix=f"Supported: {', '.join(known)}.{nearest(kind, known)}",
    )


def _our_shape(directory: Path) -> ModelShape:
    value = read_object(directory / SHAPE_FILE)
    if value.get("format") != FORMAT or not isinstance(value.get("shape"), dict):
        raise BadFile(f"not a model description of format {FORMAT}", where=str(directory / SHAPE_FILE))
    shape = ModelShape.from_json(value["shape"])
    known = [family.name for family in FAMILIES]
    if shape.family not in known:
        raise Unsupported(f"family {shape.family!r} is not supported", where=str(directory), fix=f"Known: {known}.")
    return shape


def _source(name: str, directory: Path) -> Provenance:
    """Return where the checkpoint in a directory, named so, comes from: what its page says, and without one what we
    wrote into our own file.
    """
    stated = provenance_of(name, directory)
    if stated != Provenance() or not (directory / SHAPE_FILE).exists():
        return stated
    told = read_object(directory / SHAPE_FILE).get("source")
    return Provenance.stated(told if isinstance(told, dict) else {})


def _generation(directory: Path, shape: ModelShape) -> Generation | None:
    """Return how a directory's model writes; None for one that does not."""
    if shape.output is None:
        return None
    if (directory / SHAPE_FILE).exists():
        own = directory / GENERATION_FILE
        return Generation.from_json(read_object(own)) if own.is_file() else None
    told, config = directory / GENERATION_CONFIG, read_object(directory / "config.json")
    if told.is_file():
        tokens = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
        config = {**{name: config.get(name) for name in tokens}, **read_object(told)}
    try:
        return read_generation(config, behind_encoder=shape.decoder is not None)
    except (TypeError, ValueError, KeyError) as error:
        raise BadFile(f"has a setting of the wrong type ({error})", where=str(told)) from None


def _complete(
    shape: ModelShape, weights: Mapping[str, Tensor], *, new_head: bool, seed: int, where: str
) -> dict[str, Tensor]:
    """Return the weights for every name of the network, drawing a new head's where none fit."""
    with torch.device("meta"):
        expected = Network(shape).state_dict()
    complete: dict[str, Tensor] = {}
    wrong = []
    for name, slot in expected.items():
        value = weights.get(name)
        fits = value is not None and value.shape == slot.shape and value.is_floating_point() == slot.is_floating_point()
        if fits and value is not None:
            complete[name] = value
        elif new_head and name.startswith("head."):
            complete[name] = _drawn(slot, shape, seed)
        else:
            wrong.append(f"{name} is {'missing' if value is None else tuple(value.shape)}, wanted {tuple(slot.shape)}")
    extra = sorted(set(weights) - set(expected))
    wrong += [f"{name} is not part of this model" for name in extra if not name.startswith("head.")]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise BadFile("; ".join(wrong[:4]) + more, where=where, fix="The weights do not belong to this configuration.")
    return complete


def _drawn(slot: Tensor, shape: ModelShape, seed: int) -> Tensor:
    if slot.ndim == 1:
        return torch.zeros(slot.shape)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(slot.shape, generator=generator) * shape.initializer_range
