"""A virtual environment per tool, made when it is first needed, and building with what is in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from against_peers.tools import HERE, Failed, Model, Tool, last_line
from models.files import digest_of

STAMP: Final = "requirements.sha256"


def interpreter(tool: Tool, venvs: Path) -> str:
    """Return the Python that has the tool's packages, after installing them where they are not there yet.

    An environment is made anew when the requirements or the version of Python are others than it was made with.

    Raises:
        Failed: the packages could not be installed; nothing is kept, so the next call tries again.
    """
    if tool.requirements is None:
        return sys.executable
    folder = venvs.resolve() / tool.name  # builds run elsewhere
    python, stamp = folder / "bin" / "python", folder / STAMP
    wanted = digest_of([tool.requirements.read_text(encoding="utf-8"), sys.version])
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    _carry_out("install", [sys.executable, "-m", "venv", "--without-pip", str(folder)])
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
    _carry_out("install", [*pip, "--requirement", str(tool.requirements)])
    stamp.write_text(wanted, encoding="ascii")
    return str(python)


def build(tool: Tool, python: str, checkpoint: Path, texts: Path, out: Path) -> list[Model]:
    """Return what the tool makes of a checkpoint, in an empty folder `out`; the time includes starting Python.

    `texts` is a JSON file of {"ids": ..., "kinds": ...} to calibrate on.

    Raises:
        Failed: it ended with an error, or did not write what it says.
    """
    out.mkdir(parents=True)
    script = [str(HERE / "builds" / "run.py"), str(tool.script), *(str(path) for path in (checkpoint, texts, out))]
    # Isolated, so that no package of ours is taken for one of theirs; only our own build may import ours.
    ours = [place for place in sys.path if place] if tool.requirements is None else []
    start = time.monotonic()
    _carry_out("build", [python, "-I", *script, *ours], folder=out)
    seconds = time.monotonic() - start
    made = json.loads((out / "built.json").read_text(encoding="utf-8"))
    models = []
    for name, file in made["models"].items():
        if not (out / file).is_file():
            raise Failed("build", f"there is no {file}")
        model = Model(
            name=name,
            tool=tool.name,
            file=out / file,
            tokenizing=checkpoint,
            runtime=tool.runtime,
            python=python,
            build_seconds=seconds,
            versions=tuple(sorted(made["versions"].items())),
        )
        models.append(model)
    return models


def _carry_out(step: str, words: list[str], *, folder: Path | None = None) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise Failed(step, last_line(done.stderr or done.stdout))
