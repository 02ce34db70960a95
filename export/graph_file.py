"""A network as the file that a target loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import onnx

from export.lower import lower
from export.lower_writing import lower_encoder, lower_writer
from export.mobile import OPERATORS_FILE, to_ort
from export.search_in_graph import lower_search
from export.shortlist import Shortlist
from export.target import FileForm, Target
from export.text_in_graph import text_graph
from models.generation_settings import Generation
from models.network import Network
from models.tokenizing import Tokenizing

ONNX_FILE: Final = "model.onnx"
DECODER_FILE: Final = "decoder_model_merged.onnx"
ENCODER: Final = "encoder_model"


@final
@dataclass(frozen=True, slots=True)
class GraphFile:
    """The bytes of a model file, its name, and the files that go with it, of which one may be the `encoder`. One that
    `takes_texts` has the tokenizer in its graph.
    """

    target: Target
    name: str
    data: bytes
    extra: Mapping[str, bytes] = field(default_factory=dict)
    encoder: str | None = None
    takes_texts: bool = False

    @property
    def encoder_data(self) -> bytes | None:
        """Return the bytes of the encoder's file, where there is one."""
        return None if self.encoder is None else self.extra[self.encoder]


def graph_file(network: Network, target: Target) -> GraphFile:
    """Return the model file of a network for a target; of one that writes behind an encoder it is the decoder's, named
    as Optimum and transformers.js have it, and the encoder's goes with it.

    Raises:
        Unsupported: a module has no ONNX form.
    """
    return _stored(_graphs(network, target), target)


def search_file(
    network: Network, settings: Generation, target: Target, shortlist: Shortlist | None = None
) -> GraphFile:
    """Return the one file of a network that writes whole texts, as these settings say: the search is in its graph. With
    a `shortlist` it weighs the words alone that this has for a source.

    Raises:
        Unsupported: a module has no ONNX form, the network writes nothing, or a setting is for no graph.
        BadInput: the settings, or the shortlist, are not for this network.
    """
    return _stored({ONNX_FILE: lower_search(network, settings, target, shortlist)}, target)


def _stored(models: Mapping[str, onnx.ModelProto], target: Target) -> GraphFile:
    graphs = {name: graph.SerializeToString() for name, graph in models.items()}
    extra: dict[str, bytes] = {}
    if target.file_form is FileForm.ORT:
        graphs, operators = to_ort({f"{Path(name).stem}.ort": data for name, data in graphs.items()})
        extra = {OPERATORS_FILE: operators.encode()}
    first, *others = graphs
    extra |= {name: graphs[name] for name in others}
    return GraphFile(target, first, graphs[first], extra, next(iter(others), None))


def text_graph_file(
    network: Network, target: Target, tokenizing: Tokenizing, *, paired: bool, classes: bool
) -> GraphFile:
    """Return the model file of a network with its tokenizer in front; arguments and errors as of `text_graph`."""
    graph = text_graph(network, target, tokenizing, paired=paired, classes=classes)
    return GraphFile(target, ONNX_FILE, graph.SerializeToString(), takes_texts=True)


def _graphs(network: Network, target: Target) -> dict[str, onnx.ModelProto]:
    """Return the graphs by file, the one that answers or writes first."""
    if network.shape.output is None:
        return {ONNX_FILE: lower(network, target)}
    if network.decoder is None:
        return {ONNX_FILE: lower_writer(network, target)}
    return {DECODER_FILE: lower_writer(network, target), f"{ENCODER}.onnx": lower_encoder(network, target)}
