"""Other libraries that load a bundle, in environments of their own, which a folder named by `--peers` keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from against_peers.environments import interpreter
from against_peers.tools import Failed, Tool, last_line

ECOSYSTEM = Path(__file__).parents[1] / "ecosystem"
Asked = Sequence[dict[str, Any]]


def folder_of(config: pytest.Config) -> Path:
    """Return the folder of the environments, or skip."""
    folder: Path | None = config.getoption("--peers")
    if folder is None:
        pytest.skip("needs --peers FOLDER, where Optimum, sentence-transformers and transformers.js are installed")
    return folder.resolve()


def python_answers(script: str, asked: Asked, folder: Path) -> list[Any]:
    """Return what a script of this folder answers in the Python that has the loaders, or skip."""
    try:
        python = interpreter(Tool("loaders", ECOSYSTEM / script, ECOSYSTEM / "requirements.txt"), folder)
    except Failed as failed:
        pytest.skip(f"the loaders cannot be installed: {failed}")
    return _answered([python, "-I", str(ECOSYSTEM / script)], asked, folder)


def node_answers(script: str, asked: Asked, folder: Path) -> list[Any]:
    """Return what a script of this folder answers in Node, beside the packages of npm, or skip."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node with npm")
    project = folder / "node"
    project.mkdir(parents=True, exist_ok=True)
    wanted = (ECOSYSTEM / "package.json").read_text(encoding="utf-8")
    stamp = project / "installed.json"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        (project / "package.json").write_text(wanted, encoding="utf-8")
        install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=project, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the npm packages cannot be installed: {last_line(done.stderr)}")
        stamp.write_text(wanted, encoding="utf-8")
    copied = shutil.copyfile(ECOSYSTEM / script, project / script)  # packages are found from where a script lies
    return _answered([node, str(copied)], asked, project)


def _answered(command: list[str], asked: Asked, folder: Path) -> list[Any]:
    done = subprocess.run(command, input=json.dumps(asked), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
