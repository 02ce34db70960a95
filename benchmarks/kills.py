"""Kill a run at random moments, start it again each time, and compare its end with that of an undisturbed run.

    python benchmarks/kills.py RECIPE --out DIR [--kills 10] [options of `compress run`]

Each run has a cache of its own, so that a kill also hits tokenising and the teacher's outputs. A run that ends before
all kills were dealt is compared, and the remaining ones fall on another. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def ending(folder: Path) -> list[tuple[Any, ...]]:
    """Return what the finished run below `folder` came to: digest, answers and scores of every stage."""
    result = json.loads(next(folder.glob("*/run.json")).read_text(encoding="utf-8"))
    return [
        (
            stage["stage"],
            stage["artifact"]["digest"],
            stage["validation"]["predictions"],
            stage["validation"]["scores"],
        )
        for stage in result["stages"]
    ]


def finished(folder: Path) -> dict[str, int]:
    """Return when each sealed artifact appeared."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("*/[0-9]-*/artifact.json")}


def disturb(words: list[str], folder: Path, wait: Callable[[], float], most: int) -> list[str]:
    """Kill a run in `folder` after `wait()` seconds again and again, at most `most` times, until it ends.

    Returns what had been finished at each kill.
    """
    first_seen: dict[str, int] = {}
    kills: list[str] = []
    while True:
        process = start(words, folder)
        try:
            code = process.wait(wait() if len(kills) < most else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills.append(f"after {', '.join(sorted(finished(folder))) or 'no stage'}")
            code = None
        again = [name for name, made in finished(folder).items() if first_seen.setdefault(name, made) != made]
        if again:
            sys.exit(f"done twice: {', '.join(again)}")
        if code is not None:
            return kills if code == 0 else sys.exit(f"the run ended with exit code {code}")


def start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start `compress run` in a fresh process, its output and cache below `folder`."""
    places = ["--out", str(folder), "--cache", str(folder.with_name(f"{folder.name}-cache"))]
    return subprocess.Popen(
        [sys.executable, "-m", "compress", "run", *words, *places, "--json"], stdout=subprocess.DEVNULL
    )


def main() -> None:
    """Run the comparison and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True, help="a directory that does not exist yet")
    parser.add_argument("--kills", type=int, default=10)
    given, options = parser.parse_known_args()
    words = [given.recipe, *options]
    begin = time.monotonic()
    if start(words, given.out / "calm").wait() != 0:
        sys.exit("the undisturbed run failed")
    took = time.monotonic() - begin
    expected, draw = ending(given.out / "calm"), random.Random(1)
    longest = 3 * took / given.kills + 3
    kills: list[str] = []
    runs = 0
    while len(kills) < given.kills:
        folder = given.out / f"killed-{runs}"
        kills += disturb(words, folder, lambda: draw.uniform(0.5, longest), given.kills - len(kills))
        if ending(folder) != expected:
            sys.exit("the disturbed run came to another end")
        runs += 1
    print(f"undisturbed: {took:.0f} s. {len(kills)} kills over {runs} runs, all ended as it did, no stage done twice.")
    for number, place in enumerate(kills, start=1):
        print(f"kill {number}: {place}")


if __name__ == "__main__":
    main()
