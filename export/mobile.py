"""The `.ort` files for reduced builds of ONNX Runtime, and the list of operators and types such a build needs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from export.session import ERRORS_ONLY
from export.stored_graph import quiet_tools

OPERATORS_FILE = "required_operators_and_types.config"


def to_ort(models: Mapping[str, bytes]) -> tuple[dict[str, bytes], str]:
    """Return ONNX models, by the names of their files, as the bytes of `.ort` files, and the configuration text of a
    reduced build that runs them all.

    The graph is optimised before it is stored, because a reduced build has no optimiser, up to the level whose result
    does not depend on the processor. The text is what `build.py --include_ops_by_config` takes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: Path(scratch) / name for name in models}
        for name, path in paths.items():
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.save_model_format", "ORT")
            options.log_severity_level = ERRORS_ONLY
            onnxruntime.InferenceSession(models[name], options, providers=["CPUExecutionProvider"])
        listing = Path(scratch) / OPERATORS_FILE
        _list_operators(list(paths.values()), listing)
        stored = {name: path.read_bytes() for name, path in paths.items()}
        return stored, _without_paths(listing.read_text(encoding="utf-8"))


def _list_operators(models: list[Path], listing: Path) -> None:
    """Write the configuration of a reduced build that runs the models."""
    with quiet_tools():
        from onnxruntime.tools.ort_format_model.utils import create_config_from_models

        logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
        create_config_from_models(models, listing, enable_type_reduction=True)


def _without_paths(text: str) -> str:
    """Return the listing without the scratch file's name, so that the same model gives the same text."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")) + "\n"
