"""Where the public data sets and the trained teacher lie, if they do: beside the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TEACHER = SHARED / "teachers" / "minilm-sst2"
