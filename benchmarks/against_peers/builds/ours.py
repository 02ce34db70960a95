"""Ours: the checkpoint's own graph, and the same in int8 by the stages `quantize` and `export` with their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compress.settings import ExportSettings, QuantizeSettings
from compress.stage import Context
from compress.stages.export import EXPORT
from compress.stages.quantize import QUANTIZE
from models.checkpoint import Checkpoint
from models.content import Tokens
from models.encoded import Encoded
from models.tasks.text_classification import TextClassification


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the bundles of the checkpoint in float and in int8 into `out` and return their model files."""
    teacher = Checkpoint.load(checkpoint)
    examples = _encoded(texts)
    context = Context(
        teacher=teacher,
        task=TextClassification(),
        examples={"train": examples, "validation": examples},
        encoded=lambda role, checkpoint: examples,
        lessons=lambda copies, checkpoint: examples,
        seed=0,
        threads=1,
        scratch=out / "scratch",
        cache=out / "cache",
    )
    # The table of what each layer costs is for people; nothing that is built depends on it.
    settings = QuantizeSettings(sensitivity=False)
    found = {}
    for name, model in (("float", teacher), ("int8", QUANTIZE.run(teacher, settings, context).product)):
        bundle = EXPORT.run(model, ExportSettings(), context).product
        (out / name).mkdir()
        bundle.save(out / name)
        found[name] = f"{name}/{bundle.contents.graph.name}"
    return {"ours fp32": found["float"], "ours int8": found["int8"]}


def _encoded(texts: list[dict[str, list[int]]]) -> Encoded:
    """Return unlabelled texts as the stages read them."""
    seconds = [text["kinds"].index(1) if 1 in text["kinds"] else -1 for text in texts]
    ids = np.asarray([token for text in texts for token in text["ids"]], dtype=np.int32)
    return Encoded(
        content=Tokens(ids, np.asarray(seconds, dtype=np.int32)),
        offsets=np.cumsum([0, *(len(text["ids"]) for text in texts)], dtype=np.int64),
        targets=np.full(len(texts), -1, dtype=np.int64),
        truncated=0,
        digest="calibration",
    )
