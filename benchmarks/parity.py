"""PyTorch against ONNX Runtime on every example of a file, for each stage of a run, one text at a time.

    python benchmarks/parity.py runs/NAME --data dev.tsv.gz

The bundle is compared with the model that it was exported from. Exit code 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from export.bundle import Bundle
from export.lower import lower
from export.parity import bound_for, compare
from export.target import CPU
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.encoding import encode
from models.errors import Mismatch
from models.shape import CLASSIFICATION
from models.tasks import task_named


def main() -> None:
    """Print a table as Markdown, a row per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/compress").expanduser())
    given = parser.parse_args()
    table = None
    torch.set_num_threads(1)  # one text is too little work to share
    print("| model | arithmetic | examples | same top label | 95 % within | largest difference | bound |")
    print("|---|---|---|---|---|---|---|")
    held = True
    for stage in sorted(given.run.glob("[0-9]-*")):
        bundle = Bundle.open(stage) if (stage / "manifest.json").exists() else None
        if bundle is None:
            checkpoint = Checkpoint.load(stage)
        if table is None:
            head = checkpoint.shape.head
            table = task_named(CLASSIFICATION if head is None else head.task).read(Wanted(given.data), None)
        # A bundle has no network of its own: it is compared with the one before it.
        network, reader = checkpoint.network(), checkpoint.reader
        longest = checkpoint.shape.usable_positions
        data = encode(table, reader, None, max_length=longest, cache=given.cache)
        model = lower(network, CPU).SerializeToString() if bundle is None else bundle.model
        parity = compare(network, model, map(data.single, range(len(data))))
        try:
            parity.check(bound_for(network))
            verdict = "holds"
        except Mismatch:
            held, verdict = False, "FAILS"
        kind = "int8" if checkpoint.shape.int8 else "float"
        figures = f"{parity.examples} | {parity.same_top:.2%} | {parity.p95_abs:.2g} | {parity.max_abs:.2g}"
        print(f"| {stage.name} | {kind} | {figures} | {verdict} |")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
