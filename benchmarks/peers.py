"""One teacher built with Optimum, Olive, OpenVINO/NNCF, plain ONNX Runtime and with us: one table, one interleaved run.

    python benchmarks/peers.py --checkpoint TEACHER --data holdout.tsv.gz --lengths dev.tsv.gz [--bundle NAME=DIR ...]

Each peer is installed into a virtual environment of its own below `--venvs`, which is kept. What cannot be installed,
built or run is named under the table with the last line of its error. Accuracy is measured on `--data` at batch 1;
latency on fixed shapes and on texts of `--lengths`, which the static quantization is also calibrated on. Texts become
tokens by the checkpoint's tokenizer (a bundle's by its own). ONNX files run in this ONNX Runtime. Memory is the
peak of a process that loads the model and answers `--data`; MB are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from against_peers.contest import Outcome, Settings, compare
from against_peers.table import below, table
from against_peers.tools import OWN, TOOLS, Tool
from against_peers.workloads import Shape
from compress.machine import environment
from models.data import read_table
from models.errors import BadInput, CompressError

SHAPES = (Shape(1, 16), Shape(1, 32), Shape(1, 128), Shape(16, 64))


def named(word: str) -> tuple[str, Path]:
    """Return the two halves of NAME=DIR."""
    name, equals, folder = word.partition("=")
    if not (name and equals and folder):
        raise ValueError(word)
    return name, Path(folder)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="teacher, a Hugging Face directory")
    parser.add_argument("--data", required=True, help="labelled file for the accuracy")
    parser.add_argument("--lengths", required=True, help="file of texts for latency and for calibration")
    parser.add_argument(
        "--bundle", action="append", default=[], type=named, metavar="NAME=DIR", help="a bundle of ours besides"
    )
    parser.add_argument("--peer", action="append", metavar="NAME", help="only this one (again for more); default: all")
    parser.add_argument("--shapes", type=Shape.parse, nargs="+", default=list(SHAPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calibration", type=int, default=300, help="texts to calibrate on")
    parser.add_argument("--limit", type=int, help="only the first rows of --data, for a quick look")
    parser.add_argument("--venvs", type=Path, default=Path("~/.cache/compress/peers").expanduser())
    parser.add_argument("--out", type=Path, help="a new directory for what is built; default: thrown away")
    parser.add_argument("--json", type=Path, help="write everything that was measured there")
    return parser.parse_args(words)


def tell(what: str) -> None:
    """Say what is being done."""
    print(what, file=sys.stderr, flush=True)


def carry_out(given: argparse.Namespace, tools: Sequence[Tool]) -> Outcome:
    """Return what came of the comparison that the command line asks for."""
    known = [tool.name for tool in tools]
    wanted = given.peer or known
    if not set(wanted) <= set(known):
        raise BadInput(f"not all of {', '.join(wanted)} are known", where="--peer", fix=f"Known: {', '.join(known)}.")
    data = read_table(given.data)
    settings = Settings(
        checkpoint=given.checkpoint,
        data=data.first(given.limit or len(data)),
        lengths=read_table(given.lengths),
        bundles=given.bundle,
        shapes=given.shapes,
        threads=given.threads,
        rounds=given.rounds,
        calibration=given.calibration,
        venvs=given.venvs,
        tell=tell,
    )
    with ExitStack() as stack:
        out = given.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        out.mkdir(parents=True, exist_ok=True)
        return compare(settings, [tool for tool in tools if tool.name in (*wanted, OWN)], out.resolve())


def everything(given: argparse.Namespace, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Return what the JSON file holds."""
    return {
        "settings": {name: str(value) for name, value in vars(given).items()},
        "environment": environment(max(given.threads)).model_dump(mode="json"),
        "seconds": round(seconds, 1),
        "baseline": outcome.baseline,
        "models": outcome.models,
        "control": outcome.control,
        "findings": [
            {**finding._asdict(), "ratio": asdict(finding.ratio), "verdict": finding.verdict}
            for finding in outcome.findings
        ],
        "failures": [asdict(failure) for failure in outcome.failures],
    }


def main(words: Sequence[str] | None = None, tools: Sequence[Tool] = TOOLS) -> None:
    """Compare, print the table, and write the JSON file."""
    given = arguments(words)
    start = time.monotonic()
    try:
        outcome = carry_out(given, tools)
    except CompressError as error:
        sys.exit(str(error))
    seconds = time.monotonic() - start
    if given.json is not None:
        text = json.dumps(everything(given, outcome, seconds), indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")
    print(table(outcome.models, [str(shape) for shape in given.shapes], outcome.baseline))
    print()
    print(below(outcome))
    print(f"{seconds / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
