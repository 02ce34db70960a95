"""The page that explains a bundle to whoever receives it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from export.manifest import Manifest
from export.session import LABEL, TEXT
from models.imaging import MODES
from models.shape import ImageShape, ModelShape
from models.task import Task

_PAGE: Final = """\
# {family} for {task}, for ONNX Runtime

Written for the target `{target}`: {layers} layers, {parameters:,} weights, labels {labels}.
{limits} {why}

```python
{code}
```

| file | what it is |
|---|---|
{files}
`compress verify .` checks all of it: digests, inputs and outputs, and the golden outputs.
"""
_ANSWER: Final = """
session = onnxruntime.InferenceSession("{model}", {options}providers=["CPUExecutionProvider"])
logits, *others = session.run(None, {{port.name: arrays[port.name] for port in session.get_inputs()}})
{reading}"""
_WRITING: Final = """\
from pathlib import Path

from compress import Generator

generator = Generator.open(Path("."))
print(generator.write(["What do you make of this?"])[0])
for piece in generator.stream("And of this?"):  # with one beam
    print(piece, end="")"""
_NAMES: Final = '\nlabels = json.load(open("config.json", encoding="utf-8"))["id2label"]'
_FILES: Final = {
    "model.onnx": "the graph and its weights",
    "encoder_model.onnx": "the encoder, which reads",
    "decoder_model_merged.onnx": "the decoder, which writes, with its caches",
    "encoder_model.ort": "the encoder, which reads",
    "decoder_model_merged.ort": "the decoder, which writes, with its caches",
    "generation.json": "how it writes",
    "generation_config.json": "how it writes, in the keys of Hugging Face",
    "model.ort": "the graph and its weights, for full and reduced builds of ONNX Runtime",
    "required_operators_and_types.config": "what a reduced build must include (`build.py --include_ops_by_config`)",
    "tokenizer.json": "text to token ids",
    "tokenizer_config.json": "settings of the tokenizer",
    "preprocessor_config.json": "how an image becomes what the model reads",
    "config.json": "labels and sizes, in the keys of Hugging Face",
    "golden.json": "inputs with the outputs they must give",
    "modules.json": "what sentence-transformers reads first, then `sentence_bert_config.json` and the folders it names",
    "manifest.json": "digests, inputs and outputs, lineage and measurements",
}
_TEXTS: Final = """\
{reads_names}import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json"){names}
tokenizer.no_padding()
tokenizer.enable_truncation({positions})
text = tokenizer.encode({sample})
ids = np.array([text.ids], dtype=np.int64)
kinds = np.array([text.type_ids], dtype=np.int64)
arrays = {{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds}}"""
_IMAGES: Final = """\
import json

import numpy as np
import onnxruntime
from PIL import Image

settings = json.load(open("preprocessor_config.json", encoding="utf-8")){names}
image = Image.open("image.png").convert("{mode}")
if settings["do_resize"]:
    size, edges = settings["size"], image.size
    if "shortest_edge" in size:
        edges = [int(size["shortest_edge"] * edge / min(edges)) for edge in edges]
    image = image.resize((size.get("width", edges[0]), size.get("height", edges[1])), settings["resample"])
crop = settings["crop_size"]
left, top = (image.width - crop["width"]) // 2, (image.height - crop["height"]) // 2
image = image.crop((left, top, left + crop["width"], top + crop["height"]))
values = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1) * settings["rescale_factor"]
values = (values - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
arrays = {{"pixel_values": values.transpose(2, 0, 1)[None].astype(np.float32)}}"""
_TEXT_IN: Final = """\
{reads_names}import numpy as np
import onnxruntime
from onnxruntime_extensions import get_library_path  # pip install onnxruntime-extensions
{names}
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(get_library_path())
arrays = {{{arrays}}}"""
_LABEL: Final = "label, probabilities = others\nprint(label[0], f'{probabilities.max():.1%}')"
_TEXT: Final = '"What do you make of this?"'
_PAIR: Final = '"Who wrote it?", "Ada wrote it in London."'


def readme(manifest: Manifest, *, shape: ModelShape, task: Task | None, files: Collection[str]) -> str:
    """Return the Markdown page of a bundle that holds these files; one without a `task` gives hidden states."""
    dynamic = "dynamic" in manifest.int8.values()
    names = _NAMES if shape.labels else ""
    return _PAGE.format(
        family=shape.family,
        task=_task_name(shape, task),
        target=manifest.target,
        layers=len(shape.layers) + (0 if shape.decoder is None else len(shape.decoder.layers)),
        parameters=manifest.parameters,
        labels=", ".join(f"`{label}`" for label in shape.labels) or "none",
        limits=_limits(manifest, shape),
        why="its int8 scales are taken per call." if dynamic else "that is what it was made fast for.",
        code=_code(manifest, shape, task, names),
        files="".join(f"| `{name}` | {what} |\n" for name, what in _FILES.items() if name in files),
    )


def _task_name(shape: ModelShape, task: Task | None) -> str:
    if shape.output is not None:
        return shape.output.task
    return "hidden states" if task is None else task.name


def _code(manifest: Manifest, shape: ModelShape, task: Task | None, names: str) -> str:
    if shape.output is not None:
        return _WRITING
    reading = "print(logits.shape)" if task is None else task.reading
    if _takes_texts(manifest):
        chosen = any(port.name == LABEL for port in manifest.outputs)
        arrays = _of_texts_as_they_are(manifest, "" if chosen else names)
        return arrays + _ANSWER.format(model=manifest.model, options="options, ", reading=_LABEL if chosen else reading)
    arrays = _of_texts(shape, task, names) if shape.image is None else _of_images(shape.image, names)
    return arrays + _ANSWER.format(model=manifest.model, options="", reading=reading)


def _takes_texts(manifest: Manifest) -> bool:
    return any(port.name == TEXT for port in manifest.inputs)


def _of_texts_as_they_are(manifest: Manifest, names: str) -> str:
    given = (f'"{port.name}": np.array(["What do you make of this?"], dtype=object)' for port in manifest.inputs)
    return _TEXT_IN.format(reads_names="import json\n\n" if names else "", names=names, arrays=", ".join(given))


def _limits(manifest: Manifest, shape: ModelShape) -> str:
    if _takes_texts(manifest):
        return (
            f"The tokenizer is in the graph, which cuts texts to {shape.usable_positions} tokens and needs the package "
            "`onnxruntime-extensions`. Run one text at a time:"
        )
    if shape.output is not None:
        return f"It reads and writes up to {shape.usable_positions} tokens. Write one text at a time:"
    if shape.image is None:
        return f"Texts may have up to {shape.usable_positions} tokens. Run one text at a time, without padding:"
    colour = "grey" if shape.image.channels == 1 else "colour"
    return f"Images become {shape.image.height} x {shape.image.width} pixels in {colour}. Run one image at a time:"


def _of_texts(shape: ModelShape, task: Task | None, names: str) -> str:
    return _TEXTS.format(
        reads_names="import json\n\n" if names else "",
        names=names,
        positions=shape.usable_positions,
        sample=_PAIR if task is not None and task.shared else _TEXT,
    )


def _of_images(image: ImageShape, names: str) -> str:
    return _IMAGES.format(names=names, mode=MODES[image.channels])
