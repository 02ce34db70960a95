"""Students made for the runtime beside one that is made as its teacher: how fast, and how right.

    python benchmarks/students.py --teacher TEACHER --train train_fit.tsv.gz --validation holdout.tsv.gz \\
        --test dev.tsv.gz --out DIR

Every student has the same of the teacher's layers, learns from the same teacher in the same way, and goes through int8
into a bundle; nothing is pruned. Prints a table as Markdown, of the bundles: accuracy on the validation and on the test
data, each beside that of the first student, example by example; and latency at batch 1 on the lengths of the test data,
in rounds interleaved with the first student's (the first is timed beside itself). What DIR holds is not made again.
With `--epochs 0.01` it tells of the latency alone, in minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compress.cli.options import Look
from compress.inspecting import bench_model, evaluate_model
from compress.pipeline import execute
from compress.recipe import make_recipe

STUDENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "relu": {"activation": "relu"},
    "elementwise": {"norm": "elementwise"},
    "relu-elementwise": {"activation": "relu", "norm": "elementwise"},
    "relu-elementwise-320": {"activation": "relu", "norm": "elementwise", "hidden_size": 320},
}


def make(name: str, given: argparse.Namespace) -> str:
    """Return the bundle of a student, made as `given` says."""
    plain = {
        "name": name,
        "seed": given.seed,
        "teacher": given.teacher,
        "data": {"train": given.train, "validation": given.validation, "test": given.test, "max_length": 128},
        "distill": {
            "layers": given.layers,
            "epochs": given.epochs,
            "batch_size": 64,
            "learning_rate": given.learning_rate,
            "losses": {"mse": 1.0, "hidden": 1.0},
            **STUDENTS[name],
        },
        "quantize": {"sensitivity": False},
        "export": {},
        "gates": {"default": {}},
    }
    execute(make_recipe(plain, where="benchmarks/students.py"), out=given.out, cache=given.cache)
    return str(given.out / name / "bundle")


def row(name: str, bundle: str, first: str, given: argparse.Namespace) -> str:
    """Return a line of the table."""
    cells = [name]
    for data in (given.validation, given.test):
        look = Look(data=data, teacher=first, cache=given.cache)
        told = evaluate_model(bundle, look)
        gain = told["teacher"]["difference"]
        cells.append(f"{_points(told)} | {_points(gain, '+.2f')}")
    look = Look(data=given.test, teacher=first, rounds=given.rounds, threads=given.threads, cache=given.cache)
    timed = bench_model(bundle, look)
    faster = timed["speedup"]
    cells.append(f"{timed['p50_ms']:.3g} | {faster['estimate']:.3f} ({faster['low']:.3f}-{faster['high']:.3f})")
    return f"| {' | '.join(cells)} | {timed['bytes'] / 1e6:.2f} |"


def _points(told: dict[str, float], form: str = ".2f") -> str:
    estimate, low, high = (format(100 * told[key], form) for key in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"


def main() -> None:
    """Make what is asked for, measure it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("teacher", "train", "validation", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), help="the first is compared")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 3, 5])
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/compress").expanduser())
    given = parser.parse_args()
    bundles = {name: make(name, given) for name in given.students}
    first = bundles[given.students[0]]
    print(f"| student | validation | beside {given.students[0]} | test | beside it | p50 ms | times faster | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, bundle in bundles.items():
        print(row(name, bundle, first, given), flush=True)


if __name__ == "__main__":
    main()
