"""What a run costs: time, peak memory, training speed, tokenisation speed, and the time to find a run finished.

    python benchmarks/pipeline.py RECIPE --out DIR [options of `compress run`]

Runs the recipe in a fresh process, then again (which must redo nothing), then its export alone, and prints a table as
Markdown. Peak memory is the largest resident set of the process, memory-mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """What one process took."""

    seconds: float
    peak_mb: float


def carry_out(words: list[str]) -> Cost:
    """Return the cost of `compress WORDS` in a fresh process; a failure ends the benchmark."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "compress", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"compress {words[0]} ended with exit code {os.waitstatus_to_exitcode(status)}")
    return Cost(time.monotonic() - start, usage.ru_maxrss / 1024)


def tokenisation(teacher: str, source: str) -> float:
    """Return sentences tokenised a second into a fresh cache."""
    from models.data import read_table
    from models.token_cache import encode_table
    from models.tokenizing import Tokenizing

    table, tokenizing = read_table(source), Tokenizing.load(Path(teacher))
    with tempfile.TemporaryDirectory() as cache:
        start = time.monotonic()
        encode_table(table, tokenizing, None, max_length=128, cache=Path(cache))
        return len(table) / (time.monotonic() - start)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    for name in ("teacher", "train", "validation", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", type=Path, required=True, help="must not hold a run yet, or the first row is no cost")
    given = parser.parse_args()
    named = [f"--{name}={getattr(given, name)}" for name in ("teacher", "train", "validation", "test")]
    words = ["run", given.recipe, *named, "--out", str(given.out), "--cache", str(given.out / "cache")]
    first, again = carry_out(words), carry_out(words)
    run = next(path.parent for path in given.out.glob("*/run.json"))
    result = json.loads((run / "run.json").read_text(encoding="utf-8"))
    quantized = next(path for path in sorted(run.glob("[0-9]-*"), reverse=True) if "export" not in path.name)
    with tempfile.TemporaryDirectory() as scratch:
        place = ["--out", f"{scratch}/bundle", "--cache", str(given.out / "cache")]
        alone = carry_out(["export", str(quantized), f"--validation={given.validation}", *place])
    rows = [
        ("whole run", f"{first.seconds / 60:.1f} min, peak {first.peak_mb:,.0f} MB"),
        ("the same run again, finished", f"{again.seconds:.1f} s, computed {result['computed'] or 'nothing'}"),
        ("export alone, with measuring", f"{alone.seconds:.1f} s, peak {alone.peak_mb:,.0f} MB"),
        ("tokenisation", f"{tokenisation(given.teacher, given.train):,.0f} sentences a second"),
    ]
    for stage in result["stages"]:
        training = stage["artifact"]["details"].get("training") or {}
        speed = training.get("examples_per_second") if isinstance(training, dict) else None
        trained = f", {speed:,.0f} examples a second" if speed else ""
        rows.append((f"stage {stage['stage']}", f"{stage['seconds']:.0f} s{trained}"))
    print("| what | cost |\n|---|---|")
    for name, cost in rows:
        print(f"| {name} | {cost} |")


if __name__ == "__main__":
    main()
