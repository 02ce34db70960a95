"""Compress trained Transformers and prove that they are still right.

Python interface: `compress.Recipe`, `compress.load_recipe`, `compress.run`, `compress.Checkpoint`, `compress.Bundle`,
`compress.Generator`; each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Bundle": "export.bundle",
    "Checkpoint": "models.checkpoint",
    "CompressError": "models.errors",
    "Generator": "export.generator",
    "Recipe": "compress.recipe",
    "load_recipe": "compress.recipe",
    "run": "compress.pipeline",
}
__all__ = ["Bundle", "Checkpoint", "CompressError", "Generator", "Recipe", "__version__", "load_recipe", "run"]

_SIBLINGS = ("models", "export", "teacher_student")


def _check_siblings() -> None:
    """Refuse to run where a user's own `models` or `export` would be imported in place of ours."""
    root = Path(__file__).resolve().parent.parent
    for name in _SIBLINGS:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is None or found.parent != root / name:
            raise ImportError(
                f"`import {name}` finds {found or 'nothing that can be imported'}, but compress needs its own in "
                f"{root / name}. A file or folder of that name in the current directory hides it: use the `compress` "
                "command, or start Python with `python -P`, or run from another directory."
            )


_check_siblings()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
