"""Build with one tool: `python -I run.py SCRIPT CHECKPOINT TEXTS OUT [PATH ...]`, in the environment that has the tool.

TEXTS is a JSON file, a list of {"ids": token numbers, "kinds": token types}; each PATH is a folder to import from
besides. Writes OUT/built.json: {"models": name -> file, relative to OUT; "versions": package -> version}.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import distributions
from pathlib import Path


def main() -> None:
    """Build as the command line says."""
    script, checkpoint, texts, out, *paths = sys.argv[1:]
    # Scripts are named after the tools that they import, so their own folder must not be searched.
    sys.path[:] = [*paths, *(place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent)]
    # What is built here is told to nobody: without this package OpenVINO and NNCF send nothing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    spec = importlib.util.spec_from_file_location(f"build_with_{Path(script).stem}", script)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{script} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    models = module.build(Path(checkpoint), json.loads(Path(texts).read_text(encoding="utf-8")), Path(out))
    versions = {distribution.metadata["Name"]: distribution.version for distribution in distributions()}
    made = {"models": models, "versions": versions}
    (Path(out) / "built.json").write_text(json.dumps(made, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
