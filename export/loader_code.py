"""The part of a bundle's page that is about other libraries which load it as it is."""

from __future__ import annotations

from typing import Final, NamedTuple

from export.card import Card
from export.target import MOBILE


class Loader(NamedTuple):
    """Optimum's class for a task, and the pipeline of transformers.js."""

    optimum: str
    pipeline: str


_CLASSES: Final = Loader("ORTModelForSequenceClassification", "text-classification")
_STATES: Final = Loader("ORTModelForFeatureExtraction", "feature-extraction")
_LOADERS: Final = {
    "text-classification": _CLASSES,
    "multi-label-classification": _CLASSES,
    "text-regression": _CLASSES,
    "token-classification": Loader("ORTModelForTokenClassification", "token-classification"),
    "question-answering": Loader("ORTModelForQuestionAnswering", "question-answering"),
    "image-classification": Loader("ORTModelForImageClassification", "image-classification"),
    "sentence-embedding": _STATES,
    "hidden states": _STATES,
    "translation": Loader("ORTModelForSeq2SeqLM", "translation"),
    "summarization": Loader("ORTModelForSeq2SeqLM", "summarization"),
    "text2text-generation": Loader("ORTModelForSeq2SeqLM", "text2text-generation"),
    "text-generation": Loader("ORTModelForCausalLM", "text-generation"),
}
_PAGE: Final = """\
## In other libraries

Optimum loads this folder by `{optimum}.from_pretrained(".")`, and transformers.js, in Node and in a browser, by

```js
import {{ env, pipeline }} from '@huggingface/transformers';

env.localModelPath = '..'; // where this folder lies
const answer = await pipeline('{pipeline}', 'bundle', {{ subfolder: '' }}); // the folder's name
```
{more}"""
_WRITES: Final = """
Its pipelines write 256 tokens unless they are given `max_new_tokens`, and weigh no beams.
"""
_EMBEDS: Final = """
sentence-transformers loads it by `SentenceTransformer(".", backend="onnx")`.
"""


def in_other_libraries(card: Card) -> str:
    """Return the section of a bundle that others load; an empty text for one that they do not: they tokenize and search
    themselves. Layers that write and are not alike have caches of other sizes than a `config.json` can say.
    """
    shape = card.shape
    layers = shape.layers if shape.decoder is None else shape.decoder.layers
    uneven = shape.output is not None and len({(layer.heads, layer.kv_heads, layer.head_size) for layer in layers}) > 1
    others = card.manifest.target == MOBILE.name or card.manifest.stands_alone
    if others or uneven or card.task_name not in _LOADERS:
        return ""
    more = _WRITES if shape.output is not None else _EMBEDS if "modules.json" in card.files else ""
    return _PAGE.format(**_LOADERS[card.task_name]._asdict(), more=more)
