"""Write the ONNX graph of a model, prove it equal to PyTorch on real inputs, and bundle it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from compress.settings import ExportSettings
from compress.stage import Context, Output, Stage
from export.bundle import Contents, write_bundle
from export.graph_file import graph_file
from export.parity import bound_for, compare
from export.session import Arrays
from export.target import TARGETS
from models.checkpoint import Checkpoint
from models.encoded import Encoded
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
        Mismatch: ONNX Runtime and PyTorch do not agree on the validation examples.
    """
    network = parent.network()
    graph = graph_file(network, TARGETS[settings.target])
    data = context.validation
    rows = spread(data, PARITY_EXAMPLES)
    parity = compare(network, graph.data, _singles(data, rows, context.progress))
    parity.check(bound_for(network))
    contents = Contents(
        shape=parent.shape,
        reader=parent.reader,
        graph=graph,
        examples=[_single(data, row) for row in spread(data, settings.golden)],
        parameters=parent.parameters,
        projection=parent.projection(),
    )
    return Output(NewBundle(contents), {"parity": asdict(parity)})


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
