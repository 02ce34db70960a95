"""The stages. A new one is a file here and a row in STAGES; their order is the pipeline's."""

from __future__ import annotations

from typing import Any

from compress.stage import Stage
from compress.stages.distill import DISTILL
from compress.stages.export import EXPORT
from compress.stages.prune import PRUNE
from compress.stages.quantize import QUANTIZE
from compress.stages.train import TRAIN
from compress.stages.trim import TRIM

STAGES: tuple[Stage[Any, Any], ...] = (TRAIN, DISTILL, PRUNE, TRIM, QUANTIZE, EXPORT)

__all__ = ["DISTILL", "EXPORT", "PRUNE", "QUANTIZE", "STAGES", "TRAIN", "TRIM"]
