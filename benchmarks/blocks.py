"""What a linear layer costs in int8, and in blocks of 4 or 8 bits.

    python benchmarks/blocks.py

Prints a table as Markdown: microseconds of a call of ONNX Runtime that multiplies so many rows, by the operators that
the exporter writes. Counted is the processor's time of the one thread, so that other programs take no part in it but by
the caches that they share; a figure is the median of the rounds, in which the layers take turns. A layer that lies in
the processor's cache between two calls is not what a model's is: see the largest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import nn

from export.emit import Emit
from export.lowering import GROUPS, LOWERINGS
from export.session import Arrays, open_session
from export.target import CPU
from export.values import Port, Value, build
from models.kinds import BLOCKS, Int8Form
from models.layers.blocked import BlockedLinear
from models.layers.quantized import QuantizedLinear

SIZES = ("576x1536", "1536x576", "576x49152", "2048x8192", "128x512")
ROWS = (1, 4)
CALL_WEIGHTS = 10_000_000  # of the layers that are called in a round: as often as that makes


class Row(NamedTuple):
    """What a layer costs with so many rows: microseconds of each round, by the way it is multiplied."""

    size: str
    rows: int
    rounds: dict[str, list[float]]

    def microseconds(self, way: str) -> float:
        """Return the median of the rounds."""
        return float(np.median(self.rounds[way]))


def layers_of(size: str) -> dict[str, QuantizedLinear | BlockedLinear]:
    """Return the layer of a size, inputs x outputs, in every form, with levels that are drawn."""
    inputs, outputs = (int(number) for number in size.split("x"))
    found: dict[str, QuantizedLinear | BlockedLinear] = {
        "int8": QuantizedLinear(inputs, outputs, form=Int8Form.DYNAMIC)
    }
    found |= {
        f"{blocks.bits} bits, blocks of {blocks.inputs}": BlockedLinear(inputs, outputs, blocks=blocks)
        for blocks in BLOCKS.values()
    }
    generator = torch.Generator().manual_seed(0)
    for layer in found.values():
        layer.weight.random_(generator=generator)
        layer.weight_scale.fill_(0.01)
    return found


def opened(layer: nn.Module) -> onnxruntime.InferenceSession:
    """Return the layer alone in a graph, opened."""
    read = Value(Port("x", "float32", ("rows", "one", int(layer.in_features))))  # type: ignore[arg-type]
    (output,) = GROUPS[type(layer)]([layer], [Emit(CPU, LOWERINGS, GROUPS, "layer")], read)
    model = build([read], {Port("y", "float32", ("rows", "one", "out")): output}, opset=CPU.opset, name="layer")
    return open_session(model.SerializeToString(), threads=1)


def call_microseconds(model: onnxruntime.InferenceSession, given: Arrays, *, calls: int) -> float:
    """Return the processor's time of a call, the mean of so many."""
    began = time.thread_time_ns()
    for _ in range(calls):
        model.run(None, given)
    return (time.thread_time_ns() - began) / calls / 1000


def measured(sizes: Sequence[str], numbers: Sequence[int], *, rounds: int) -> list[Row]:
    """Return what every size costs with every number of rows."""
    found = []
    for size in sizes:
        layers = layers_of(size)
        models = {way: opened(layer) for way, layer in layers.items()}
        inputs, outputs = layers["int8"].in_features, layers["int8"].out_features
        calls = max(1, CALL_WEIGHTS // (inputs * outputs))
        for rows in numbers:
            values = np.random.default_rng(0).standard_normal((rows, 1, inputs)).astype(np.float32)
            times: dict[str, list[float]] = {way: [] for way in models}
            for number in range(rounds + 1):
                for way in list(models)[:: 1 if number % 2 else -1]:
                    times[way].append(call_microseconds(models[way], {"x": values}, calls=calls))
            found.append(Row(size, rows, {way: own[1:] for way, own in times.items()}))  # the first warms up
    return found


def table(found: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    ways = list(found[0].rounds)
    lines = ["| inputs x outputs | rows |" + "".join(f" {way}, µs |" for way in ways), f"|---|---|{'---|' * len(ways)}"]
    for row in found:
        lines.append(f"| {row.size} | {row.rows} |" + "".join(f" {row.microseconds(way):.3g} |" for way in ways))
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="Inputs x outputs.")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(table(measured(given.sizes, given.rows, rounds=given.rounds)))


if __name__ == "__main__":
    main()
