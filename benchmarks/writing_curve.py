"""What a token costs to write, by how many were written before it: with caches, and by reading everything again.

    python benchmarks/writing_curve.py

Prints a table as Markdown and draws docs/writing.svg. The model is a GPT-2 of 6 layers, 384 wide, with 6 heads, an FFN
of 1,536 and 8,192 words, in dynamic int8, written by the exporter and run in ONNX Runtime by the steps that `compress
predict` takes: one thread, one text. Its weights are drawn, as time does not depend on them. A text is written to its
end; at a length stands the median of the tokens around it, with the range of the rounds. The curve through the costs,
milliseconds = a + b * tokens + c * tokens², says how much of the last token's cost is square.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compress.quantization.schemes import forms_of, quantize
from compress.sources import embedded_teacher
from export.graph_file import graph_file
from export.runtime_steps import RuntimeSteps, WriterSessions, writer_sessions
from export.target import CPU
from line_chart import Point, line_chart
from models.checkpoint import Checkpoint
from models.files import write_text
from models.shape import LayerShape, ModelShape, OutputShape
from models.tokenizing import Tokenizing

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
LAYERS, HIDDEN, LAYER, WORDS = 6, 384, LayerShape(6, 64, 1536, causal=True), 8192
AROUND = 8  # tokens whose median stands at a length
CACHED, AGAIN = "with caches", "read again"


class Row(NamedTuple):
    """What a token costs behind so many others: milliseconds of each round."""

    way: str
    tokens: int
    rounds: tuple[float, ...]

    @property
    def ms(self) -> float:
        """Return the median of the rounds."""
        return float(np.median(self.rounds))


def sessions(positions: int) -> WriterSessions:
    """Return the model, opened."""
    shape = ModelShape(
        family="gpt2",
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        layers=(LAYER,) * LAYERS,
        max_positions=positions,
        pre_norm=True,
        embedding_norm=False,
        output=OutputShape(),
    )
    drawn = Checkpoint.new(shape, Tokenizing.load(embedded_teacher()), seed=0)
    network = quantize(drawn, forms_of(drawn)).network()
    return writer_sessions(network.shape, graph_file(network, CPU).data, None, threads=1)


def written(model: WriterSessions, tokens: int) -> list[float]:
    """Return the milliseconds of every token of a text but the first."""
    draw, steps, taken = np.random.default_rng(0), RuntimeSteps(model), []
    steps.begin([[int(draw.integers(WORDS))]])
    for token in draw.integers(0, WORDS, tokens - 1):
        began = time.perf_counter()
        steps.advance(np.array([token]), np.array([0]))
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def read_again(model: WriterSessions, tokens: int) -> float:
    """Return the milliseconds of a token for which all before it are read."""
    prompt = np.random.default_rng(0).integers(0, WORDS, tokens).tolist()
    began = time.perf_counter()
    RuntimeSteps(model).begin([prompt])
    return 1000 * (time.perf_counter() - began)


def measured(model: WriterSessions, lengths: Sequence[int], *, rounds: int) -> list[Row]:
    """Return both ways at every length."""
    longest = max(lengths)
    written(model, min(lengths))  # memory and kernels are got ready in a first call
    cached = [written(model, longest) for _ in range(rounds)]
    rows = []
    for length in lengths:
        around = slice(max(0, length - 1 - AROUND), length - 1)
        rows.append(Row(CACHED, length, tuple(float(np.median(one[around])) for one in cached)))
        rows.append(Row(AGAIN, length, tuple(read_again(model, length) for _ in range(rounds))))
    return rows


def square_share(rows: Sequence[Row]) -> float:
    """Return which share of the last cost is square, by a curve through all costs, each of them equally exact."""
    ms = np.array([row.ms for row in rows])
    scaled = np.array([row.tokens for row in rows]) / rows[-1].tokens
    powers = np.stack([np.ones_like(scaled), scaled, scaled**2], axis=1)
    parts, *_ = np.linalg.lstsq(powers / ms[:, None], np.ones_like(ms), rcond=None)
    return float(parts[2] / parts.sum())


def table(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, and how square each way is."""
    ways = list(dict.fromkeys(row.way for row in rows))
    lines = ["| tokens before |" + "".join(f" {way}, ms |" for way in ways), f"|---|{'---|' * len(ways)}"]
    for length in dict.fromkeys(row.tokens for row in rows):
        lines.append(f"| {length:,} |" + "".join(f" {row.ms:.3g} |" for row in rows if row.tokens == length))
    for way in ways:
        own = [row for row in rows if row.way == way]
        lines += [
            "",
            f"{way}: {square_share(own):.0%} of what the last token costs grows with the square of the length.",
        ]
    return "\n".join(lines)


def drawing(rows: Sequence[Row]) -> str:
    """Return milliseconds of a token over how many are before it, as SVG."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        told = f"behind {row.tokens} tokens: {row.ms:.3g} ms"
        lines.setdefault(row.way, []).append(Point(row.tokens, row.ms, min(row.rounds), max(row.rounds), told))
    return line_chart(lines, caption="milliseconds of a token", range_=(1.0, 1.0))


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "writing.svg")
    given = parser.parse_args()
    rows = measured(sessions(max(given.lengths)), given.lengths, rounds=given.rounds)
    print(table(rows))
    write_text(given.out, drawing(rows))


if __name__ == "__main__":
    main()
