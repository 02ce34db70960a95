"""The page that explains a bundle to whoever receives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from export.caches import SEQUENCES
from export.card import Card
from export.loader_code import in_other_libraries
from export.manifest import Manifest
from export.phone_code import on_a_phone
from export.text.ports import LABEL
from models.imaging import MODES
from models.provenance import page_of
from models.shape import ImageShape, ModelShape
from models.task import Task

_USE: Final = """\
## How to use it

{limits} {why}

```python
{code}
```
"""
_HOLDS: Final = """\
## What is in it

| file | what it is |
|---|---|
{files}
`compress verify .` checks all of it: digests, inputs and outputs, the golden outputs and the time. Without Python,
`node verify.mjs` checks {without_python}.
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
_SEARCHING: Final = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.no_padding()
tokenizer.no_truncation()
ids = np.array([tokenizer.encode("What do you make of this?").ids], dtype=np.int64)
arrays = {{"input_ids": ids, "attention_mask": np.ones_like(ids)}}  # and, to write less, "max_tokens": np.array(20)
session = onnxruntime.InferenceSession("{model}", providers=["CPUExecutionProvider"])
(texts,) = session.run(["{texts}"], {{port.name: arrays[port.name] for port in session.get_inputs()}})
print(tokenizer.decode(texts[0].tolist()))  # the best one; the tokens that end and pad it are left out"""
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
    "index.html": "a page that runs the model in a browser: `python -m http.server` here, then open its address",
    "web": "what the page is made of, with ONNX Runtime and a tokenizer in WebAssembly and JavaScript",
    "manifest.json": "digests, inputs and outputs, lineage and measurements",
    "verify.mjs": "proves the bundle without Python",
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


def readme(card: Card, *, metadata: Mapping[str, Any] | None = None, told: Sequence[str] = ()) -> str:
    """Return the Markdown page of a bundle: a head of metadata, with more of it where there is `metadata`, and what is
    `told` of how it was made, section by section, before how to use it.
    """
    title = f"# {card.shape.family} for {card.task_name}, for ONNX Runtime\n"
    own = [section(card) for section in SECTIONS]
    text = "\n".join(part for part in (title, _made_of(card), *told, *own) if part)
    return page_of({**(metadata or {}), **card.metadata}, text)


def _made_of(card: Card) -> str:
    shape = card.shape
    layers = len(shape.layers) + (0 if shape.decoder is None else len(shape.decoder.layers))
    labels = ", ".join(f"`{label}`" for label in shape.labels) or "none"
    weights = f"{card.manifest.parameters:,} weights"
    return f"Written for the target `{card.manifest.target}`: {layers} layers, {weights}, labels {labels}.\n"


def _use(card: Card) -> str:
    dynamic = "dynamic" in card.manifest.int8.values()
    return _USE.format(
        limits=_limits(card),
        why="its int8 scales are taken per call." if dynamic else "that is what it was made fast for.",
        code=_code(card),
    )


def _holds(card: Card) -> str:
    files = "".join(f"| `{name}` | {what} |\n" for name, what in _FILES.items() if name in card.files)
    texts = "the digests alone, for no runtime there has operators that read texts"
    numbers = "the digests, and the outputs and the time where `onnxruntime-node` is installed"
    return _HOLDS.format(files=files, without_python=texts if card.manifest.takes_texts else numbers)


# In the order of the page; one that has nothing to say of a bundle gives an empty text.
SECTIONS: Final[tuple[Callable[[Card], str], ...]] = (_use, in_other_libraries, on_a_phone, _holds)


def _code(card: Card) -> str:
    shape, task = card.shape, card.task
    if shape.output is not None:
        return _SEARCHING.format(model=card.manifest.model, texts=SEQUENCES) if card.manifest.searches else _WRITING
    names = _NAMES if shape.labels else ""
    reading = "print(logits.shape)" if task is None else task.reading
    if card.manifest.takes_texts:
        chosen = any(port.name == LABEL for port in card.manifest.outputs)
        arrays = _of_texts_as_they_are(card.manifest, "" if chosen else names)
        reading = _LABEL if chosen else reading
        return arrays + _ANSWER.format(model=card.manifest.model, options="options, ", reading=reading)
    arrays = _of_texts(shape, task, names) if shape.image is None else _of_images(shape.image, names)
    return arrays + _ANSWER.format(model=card.manifest.model, options="", reading=reading)


def _of_texts_as_they_are(manifest: Manifest, names: str) -> str:
    given = (f'"{port.name}": np.array(["What do you make of this?"], dtype=object)' for port in manifest.inputs)
    return _TEXT_IN.format(reads_names="import json\n\n" if names else "", names=names, arrays=", ".join(given))


def _limits(card: Card) -> str:
    shape = card.shape
    if card.manifest.takes_texts:
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
