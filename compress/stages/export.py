"""Write the ONNX graph of a model, prove it equal to PyTorch on real inputs, and bundle it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from compress.settings import ExportSettings
from compress.stage import Context, Output, Stage
from export.bundle import FLOAT_TOLERANCE, Contents, write_bundle
from export.graph_file import GraphFile, graph_file, text_graph_file
from export.parity import Parity, bound_for, compare
from export.parity_writing import compare_writing, words_bound
from export.runtime_steps import writer_sessions
from export.session import PAIR, Arrays
from export.target import TARGETS
from export.text.comparison import Compared, compare_answers, compare_tokens
from export.text.feeding import row_texts, with_tokens
from export.text.special_tokens import LEAVE_OUT
from export.text_in_graph import require_text_in, tokens_graph
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import Unsupported
from models.network import Network
from models.progress import Progress
from models.reading import tokenizer_of
from models.tokenizing import Tokenizing

PARITY_EXAMPLES = 256


@final
@dataclass(frozen=True, slots=True)
class NewBundle:
    """A bundle that is not written yet."""

    contents: Contents

    @property
    def parameters(self) -> int:
        """Return the number of weights."""
        return self.contents.parameters

    def save(self, directory: Path) -> None:
        """Write the bundle's files into an empty directory."""
        write_bundle(directory, self.contents)


def run(parent: Checkpoint, settings: ExportSettings, context: Context) -> Output[NewBundle]:
    """Return the bundle of `parent`.

    Raises:
        Mismatch: ONNX Runtime and PyTorch do not agree on the validation examples, or the tokenizer in the graph and
            the tokenizer itself on a text.
        Unsupported: the tokenizer is to be in the graph, and has no form there.
    """
    target, data = TARGETS[settings.target], context.validation
    details: dict[str, Any] = {}
    if settings.text_in:
        require_text_in(parent.shape, target)
        details["text_in"] = asdict(_compared(parent, context))
    network = parent.network()
    graph = graph_file(network, target)
    rows = spread(data, PARITY_EXAMPLES)
    details["parity"] = asdict(_parity(network, graph, _singles(data, rows, context.progress)))
    rows = spread(data, settings.golden)
    if settings.text_in:
        examples = [with_tokens(row_texts(data, row), *_reading(parent)) for row in rows]
        graph = _with_tokenizer(network, graph, parent, context, examples)
    else:
        examples = [_single(data, row) for row in rows]
    return Output(NewBundle(Contents.of(parent, graph, examples)), details)


def _reading(parent: Checkpoint) -> tuple[Tokenizing, int]:
    """Return the tokenizer of a model, and the positions that a text is cut to."""
    return tokenizer_of(parent.reader, wanted_by="export.text_in"), parent.shape.usable_positions


def _compared(parent: Checkpoint, context: Context) -> Compared:
    """Return on how many texts the tokenizer in the graph gives the tokens of the tokenizer itself.

    Raises:
        Mismatch: there is a text on which it does not.
        Unsupported: it has no form in a graph.
    """
    table = context.validation.table
    if table is None or len(table) != len(context.validation):
        raise Unsupported("the rows are read in parts of a text", where="export.text_in", fix=LEAVE_OUT)
    tokenizing, positions = _reading(parent)
    graph = tokens_graph(tokenizing, paired=table.pairs is not None, positions=positions).SerializeToString()
    return compare_tokens(graph, tokenizing, table.texts, table.pairs, positions=positions, progress=context.progress)


def _with_tokenizer(
    network: Network, plain: GraphFile, parent: Checkpoint, context: Context, examples: Sequence[Arrays]
) -> GraphFile:
    """Return the file of the network with its tokenizer in front, which gives for texts what the `plain` one gives for
    their tokens.

    Raises:
        Mismatch: it gives something else.
    """
    paired = any(PAIR in example for example in examples)
    classes = context.task.metric.classes
    graph = text_graph_file(network, plain.target, _reading(parent)[0], paired=paired, classes=classes)
    compare_answers(graph.data, plain.data, examples, tolerance=FLOAT_TOLERANCE)
    return graph


def _parity(network: Network, graph: GraphFile, examples: Iterator[Arrays]) -> Parity:
    if network.shape.output is None:
        parity = compare(network, graph.data, examples)
        parity.check(bound_for(network))
        return parity
    encoder = None if graph.encoder is None else graph.extra[graph.encoder]
    parity = compare_writing(network, writer_sessions(network.shape, graph.data, encoder, threads=1), examples)
    parity.check(words_bound(network))
    return parity


def milder(settings: ExportSettings, details: dict[str, Any]) -> None:
    """Return nothing: an export changes no accuracy that a milder one could win back."""


def spread(data: Encoded, count: int) -> list[int]:
    """Return `count` row numbers spread evenly over the data, all of them where there are fewer."""
    return [int(row) for row in np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round())]


def _singles(data: Encoded, rows: list[int], progress: Progress) -> Iterator[Arrays]:
    report = progress("compare with PyTorch")
    for number, row in enumerate(rows, start=1):
        yield _single(data, row)
        report(number, len(rows))


def _single(data: Encoded, row: int) -> Arrays:
    return {name: value.numpy() for name, value in data.batch(np.asarray([row])).inputs.items()}


EXPORT: Stage[ExportSettings, NewBundle] = Stage("export", ExportSettings, run, milder)
