"""Write the ONNX graph of a model, prove it equal to PyTorch on real inputs, and bundle it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from compress.settings import ExportSettings
from compress.stage import Context, Output, Stage
from export.bundle import Contents, write_bundle
from export.graph_file import GraphFile, graph_file
from export.page import Given, Page, make_page
from export.parity import Parity, bound_for, compare
from export.parity_writing import compare_writing, words_bound
from export.runtime_steps import writer_sessions
from export.session import Arrays
from export.target import TARGETS
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.network import Network
from models.progress import Progress

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
        BadInput: no page for browsers can be made, and one is asked for.
        Mismatch: ONNX Runtime and PyTorch do not agree on the validation examples, or a page reads them otherwise.
    """
    network, target = parent.network(), TARGETS[settings.target]
    page = _page(parent, settings, context) if target.page else None
    graph = graph_file(network, target)
    data = context.validation
    rows = spread(data, PARITY_EXAMPLES)
    parity = _parity(network, graph, _singles(data, rows, context.progress))
    contents = Contents.of(parent, graph, [_single(data, row) for row in spread(data, settings.golden)])
    details: dict[str, Any] = {"parity": asdict(parity)}
    if page is not None:
        contents = replace(contents, page=page.files)
        details["page"] = {"texts": page.texts, "read_otherwise": list(page.otherwise)}
    return Output(NewBundle(contents), details)


def _page(parent: Checkpoint, settings: ExportSettings, context: Context) -> Page:
    """Return the page for browsers, which reads the texts of golden examples first."""
    data = context.validation
    rows = [*spread(data, settings.golden), *spread(data, PARITY_EXAMPLES)]
    examples = dict.fromkeys(int(data.examples[row]) if len(data.examples) else row for row in rows)
    table, given = data.table, []
    if table is not None:
        pairs: Sequence[str | None] = [None] * len(table) if table.pairs is None else table.pairs
        given = [Given(table.texts[number], pairs[number]) for number in examples]
    return make_page(parent.shape, parent.reader, context.task, given=given, shown=settings.golden, cache=context.cache)


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
