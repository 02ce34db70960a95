"""A search over many texts: how much of what the teacher finds first a bundle of embeddings finds too.

    python benchmarks/retrieval.py BUNDLE --teacher TEACHER --data texts.tsv

Texts are drawn from the file; some of them ask, and all others are searched by the cosine of their embeddings. Recall
at k is the share of the teacher's k nearest texts that are among the bundle's k nearest, with the 95 % interval of a
bootstrap over the texts that ask. Above it stands how near both are to each other, where they have the same width.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compress.measure import Probe
from compress.sources import tree_digest
from compress.statistics import bootstrap_mean
from models.columns import Wanted
from models.data import Table
from models.errors import BadInput
from models.files import digest_of
from models.hub import local_directory
from models.tasks import task_named
from models.token_cache import encode_table

Embeddings = npt.NDArray[np.float32]
NEAREST = (1, 10, 100)


def drawn(table: Table, count: int, *, seed: int) -> list[str]:
    """Return different texts of a table, drawn from the seed."""
    texts = list(dict.fromkeys(table.texts))
    chosen = np.random.default_rng(seed).permutation(len(texts))[:count]
    return [texts[row] for row in np.sort(chosen)]


def embeddings_of(source: str, texts: list[str], *, cache: Path) -> Embeddings:
    """Return the embeddings of texts, (texts, width), each of length 1."""
    directory = local_directory(source)
    probe = Probe.open(directory, tree_digest(directory))
    if probe.shape.labels or probe.shape.head is None:
        raise BadInput("gives no embeddings", where=source)
    table = Table(texts, None, None, "drawn texts", digest_of(texts))
    longest = probe.shape.usable_positions
    given = probe.logits(encode_table(table, probe.product.tokenizing, None, max_length=longest, cache=cache))
    unit: Embeddings = given / np.linalg.norm(given, axis=1, keepdims=True)
    return unit


def recalls(ours: Embeddings, theirs: Embeddings, *, queries: int, k: int) -> npt.NDArray[np.float64]:
    """Return (queries,) the share of the k texts nearest by `theirs` that are among the k nearest by `ours`; the first
    `queries` rows ask, the others are searched.
    """
    nearest = [
        np.argsort(-(each[:queries] @ each[queries:].T), axis=1, kind="stable")[:, :k] for each in (ours, theirs)
    ]
    return np.array([len(np.intersect1d(one, other)) / k for one, other in zip(*nearest, strict=True)])


def main() -> None:
    """Print a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True, help="File with a column of texts.")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/compress").expanduser())
    given = parser.parse_args()
    table = task_named("sentence-embedding").read(Wanted(given.data), None)
    texts = drawn(table, given.texts + given.queries, seed=given.seed)
    np.random.default_rng(given.seed).shuffle(texts)
    ours, theirs = (embeddings_of(source, texts, cache=given.cache) for source in (given.bundle, given.teacher))
    print(f"{given.queries} texts ask, {len(texts) - given.queries} are searched\n")
    if ours.shape == theirs.shape:
        cosines = (ours * theirs).sum(axis=1)
        print(f"cosine with the teacher: mean {cosines.mean():.4f}, lowest of 99 % {np.quantile(cosines, 0.01):.4f}\n")
    print("| k | recall of the teacher's k nearest | 95 % interval |\n|---|---|---|")
    for k in NEAREST:
        interval = bootstrap_mean(recalls(ours, theirs, queries=given.queries, k=k), confidence=0.95, sides=2)
        print(f"| {k} | {interval.estimate:.3f} | {interval.low:.3f} to {interval.high:.3f} |")


if __name__ == "__main__":
    main()
