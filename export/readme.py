"""The page that explains a bundle to whoever receives it."""

from __future__ import annotations

from typing import Final

from export.manifest import Manifest
from models.task import Task

_PAGE: Final = """\
# {family} for {task}, for ONNX Runtime

Written for the target `{target}`: {layers} layers, {parameters:,} weights, labels {labels}.
Texts may have up to {positions} tokens. Run one text at a time, without padding: {why}

```python
{reads_names}import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
{names}session = onnxruntime.InferenceSession("{model}", providers=["CPUExecutionProvider"])
{tokens}
arrays = {arrays}
logits = session.run(None, {{port.name: arrays[port.name] for port in session.get_inputs()}})[0]
{reading}
```

| file | what it is |
|---|---|
{files}
`compress verify .` checks all of it: digests, inputs and outputs, and the golden outputs.
"""
_NAMES: Final = 'labels = json.load(open("config.json", encoding="utf-8"))["id2label"]\n'
_FILES: Final = {
    "model.onnx": "the graph and its weights",
    "model.ort": "the graph and its weights, for full and reduced builds of ONNX Runtime",
    "required_operators_and_types.config": "what a reduced build must include (`build.py --include_ops_by_config`)",
    "tokenizer.json": "text to token ids",
    "tokenizer_config.json": "settings of the tokenizer",
    "config.json": "labels and sizes, in the keys of Hugging Face",
    "golden.json": "inputs with the outputs they must give",
    "modules.json": "what sentence-transformers reads first, with `1_Pooling` and `sentence_bert_config.json`",
    "manifest.json": "digests, inputs and outputs, lineage and measurements",
}
_TOKENS: Final = """\
tokenizer.no_padding()
tokenizer.enable_truncation({positions})
text = tokenizer.encode({sample})
ids = np.array([text.ids], dtype=np.int64)"""
_TEXT: Final = '"What do you make of this?"'
_PAIR: Final = '"Who wrote it?", "Ada wrote it in London."'
_ARRAYS: Final = (
    '{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.array([text.type_ids], np.int64)}'
)


def readme(manifest: Manifest, *, usable_positions: int, task: Task | None) -> str:
    """Return the Markdown page of a bundle; one without a `task` gives hidden states."""
    dynamic = "dynamic" in manifest.int8.values()
    why = "its int8 scales are taken per call." if dynamic else "that is what it was made fast for."
    head = manifest.shape.get("head") or {}
    labels = head.get("labels", [])
    absent = {"model.onnx", "model.ort"} - {manifest.model}
    absent |= {"required_operators_and_types.config"} if manifest.model != "model.ort" else set()
    absent |= {"modules.json"} if labels or not head else set()
    return _PAGE.format(
        family=manifest.shape["family"],
        task="hidden states" if task is None else task.name,
        reading="print(logits.shape)" if task is None else task.reading,
        target=manifest.target,
        layers=len(manifest.shape["layers"]),
        parameters=manifest.parameters,
        reads_names="import json\n" if labels else "",
        names=_NAMES if labels else "",
        labels=", ".join(f"`{label}`" for label in labels) or "none",
        positions=usable_positions,
        why=why,
        model=manifest.model,
        tokens=_TOKENS.format(positions=usable_positions, sample=_PAIR if task is not None and task.shared else _TEXT),
        arrays=_ARRAYS,
        files="".join(f"| `{name}` | {what} |\n" for name, what in _FILES.items() if name not in absent),
    )
