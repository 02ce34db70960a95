"""Where other attention begins to pay: full, in a window, and linear, on texts of 64 to 4,096 tokens.

    python benchmarks/attention.py --data imdb/test.jsonl.xz --tokenizer TEACHER

Prints a table as Markdown and draws docs/attention.svg. The models are as large as MiniLM (6 layers, 384 wide, 12
heads, FFN 1,536), in dynamic int8, written by the exporter and run in ONNX Runtime: one thread, batch 1, interleaved
rounds against full attention. Their weights are drawn, as time does not depend on them; what such a model answers is
not asked here. Texts are those of a file, one after the other, cut into pieces of each length; without a file, drawn
tokens.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from compress.quantization.schemes import forms_of, quantize
from compress.sources import embedded_teacher
from compress.statistics import Interval, ratio_interval
from export.latency import Call, compare
from export.lower import lower
from export.target import CPU
from line_chart import Point, line_chart
from models.checkpoint import Checkpoint
from models.files import write_text
from models.shape import HeadShape, LayerShape, ModelShape
from models.tokenizing import Tokenizing

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
LAYERS, HIDDEN, LAYER = 6, 384, LayerShape(12, 32, 1536)
FULL = "full"
KINDS = {
    FULL: LAYER,
    "window 64": replace(LAYER, window=64, global_tokens=1),
    "window 128": replace(LAYER, window=128, global_tokens=1),
    "linear": replace(LAYER, linear=True),
}
TOKENS_PER_PASS = 4096  # of the texts that are timed one after the other


class Row(NamedTuple):
    """One kind at one length: p50 of full attention and its own, ms, and how many times faster it is."""

    kind: str
    tokens: int
    full_ms: float
    ms: float
    faster: Interval


def stream(file: Path, tokenizing: Tokenizing) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the tokens of all texts of a file of JSON Lines (plain, .gz or .xz), joined, and the texts' lengths."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    with opened(file, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    rows = [np.asarray(one.ids, dtype=np.int64) for one in tokenizing.encode(texts, max_length=1 << 20)]
    return np.concatenate(rows), np.array([len(row) for row in rows])


def pieces(tokens: npt.NDArray[np.int64], length: int) -> list[Call]:
    """Return calls with pieces of this length from the beginning of the tokens."""
    count = max(1, TOKENS_PER_PASS // length)
    rows = [np.resize(tokens[start * length :], length) for start in range(count)]
    return [Call(length, {"input_ids": row[None]}) for row in rows]


def graph(layer: LayerShape, tokenizing: Tokenizing) -> bytes:
    """Return the int8 graph of a model whose layers are all like this one."""
    shape = ModelShape(
        family="bert",
        vocab_size=max(tokenizing.vocab_size, tokenizing.highest_id + 1),
        hidden_size=HIDDEN,
        layers=(layer,) * LAYERS,
        max_positions=max(LENGTHS),
        type_vocab_size=2,
        head=HeadShape(("negative", "positive")),
    )
    drawn = Checkpoint.new(shape, tokenizing, seed=0)
    serialized: bytes = lower(quantize(drawn, forms_of(drawn)).network(), CPU).SerializeToString()
    return serialized


def measured(
    tokens: npt.NDArray[np.int64], tokenizing: Tokenizing, lengths: Sequence[int], *, rounds: int
) -> list[Row]:
    """Return every kind at every length beside full attention."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.onnx" for kind in KINDS}
        for kind, layer in KINDS.items():
            files[kind].write_bytes(graph(layer, tokenizing))
        for length in lengths:
            for kind in list(KINDS)[1:]:
                found = compare(files[FULL], files[kind], pieces(tokens, length), rounds=rounds)
                faster = ratio_interval(found.baseline.rounds, found.candidate.rounds, sides=2)
                rows.append(Row(kind, length, found.baseline.p50_ms, found.candidate.p50_ms, faster))
    return rows


def pays_from(rows: Sequence[Row], kind: str) -> int | None:
    """Return the length from which on a kind is faster than full attention, with 95 % confidence, at all lengths."""
    own = sorted((row for row in rows if row.kind == kind), key=lambda row: row.tokens, reverse=True)
    found = None
    for row in own:
        if row.faster.low <= 1:
            break
        found = row.tokens
    return found


def table(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, and from where on each kind pays."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    lines = ["| tokens | full, ms |" + "".join(f" {kind}, ms | times faster (95 %) |" for kind in kinds)]
    lines.append("|---|---|" + "---|---|" * len(kinds))
    for length in dict.fromkeys(row.tokens for row in rows):
        own = [row for row in rows if row.tokens == length]
        cells = [
            f" {row.ms:.3g} | {row.faster.estimate:.2f} ({row.faster.low:.2f}-{row.faster.high:.2f}) |" for row in own
        ]
        lines.append(f"| {length:,} | {np.median([row.full_ms for row in own]):.3g} |" + "".join(cells))
    for kind in kinds:
        first = pays_from(rows, kind)
        told = "at none of these lengths" if first is None else f"from {first:,} tokens on"
        lines += ["", f"{kind}: faster than full attention {told}."]
    return "\n".join(lines)


def drawing(rows: Sequence[Row]) -> str:
    """Return times faster than full attention over the length, as SVG."""
    lines = {kind: [_point(row) for row in rows if row.kind == kind] for kind in list(KINDS)[1:]}
    return line_chart(lines, caption="times faster than full attention", range_=(0.8, 1.5), reference=FULL)


def _point(row: Row) -> Point:
    told = f"{row.tokens} tokens: {row.ms:.3g} ms, {row.faster.estimate:.2f} times faster"
    return Point(row.tokens, row.faster.estimate, row.faster.low, row.faster.high, told)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSON Lines with `text`, plain, .gz or .xz; drawn tokens if left out")
    parser.add_argument("--tokenizer", type=Path, default=embedded_teacher(), help="checkpoint whose tokens are read")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "attention.svg")
    given = parser.parse_args()
    tokenizing = Tokenizing.load(given.tokenizer)
    if given.data is None:
        tokens = np.random.default_rng(0).integers(0, tokenizing.vocab_size, TOKENS_PER_PASS)
    else:
        tokens, lengths = stream(given.data, tokenizing)
        longer = ", ".join(f"{(lengths > length).mean():.1%} have more than {length:,}" for length in given.lengths)
        print(f"{len(lengths):,} texts of {np.median(lengths):.0f} tokens in the median; {longer}.\n")
    rows = measured(tokens, tokenizing, given.lengths, rounds=given.rounds)
    print(table(rows))
    write_text(given.out, drawing(rows))


if __name__ == "__main__":
    main()
