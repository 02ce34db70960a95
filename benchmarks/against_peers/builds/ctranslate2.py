"""CTranslate2: its converter from `transformers`, with weights in float and in int8.

Runs with the packages of `requirements/ctranslate2.txt` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from ctranslate2.converters import TransformersConverter
from ctranslate2.converters import transformers as loaders

FORMS = {"CTranslate2 fp32": "float32", "CTranslate2 int8": "int8"}


@loaders.register_loader("MarianConfig")
class Marian(loaders.MarianMTLoader):  # type: ignore[misc]
    """Marian whose padding is not the last word: the converter's own loader takes the last row away, whatever it is."""

    def get_model_spec(self, model: Any) -> Any:
        """Return the network, with every row of the table."""
        model.config.normalize_before = False
        model.config.normalize_embedding = False
        return loaders.BartLoader.get_model_spec(self, model)

    def get_vocabulary(self, model: Any, tokenizer: Any) -> Any:
        """Return every word."""
        return loaders.BartLoader.get_vocabulary(self, model, tokenizer)


@loaders.register_loader("PegasusConfig")
class Pegasus(loaders.PegasusLoader):  # type: ignore[misc]
    """PEGASUS, whose configuration no longer says that its norms stand before the sublayers."""

    def get_model_spec(self, model: Any) -> Any:
        """Return the network."""
        model.config.normalize_before = True
        model.config.normalize_embedding = False
        return super().get_model_spec(model)


class Converter(TransformersConverter):  # type: ignore[misc]
    """Reads `tokenizer.json`, whatever class of tokenizer the family usually has."""

    def load_tokenizer(self, tokenizer_class: Any, name: str, **options: Any) -> Any:
        """Return the tokenizer in the folder."""
        return transformers.PreTrainedTokenizerFast.from_pretrained(name, **options)


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the models into `out` and return their files; `texts` are not needed."""
    for form in FORMS.values():
        Converter(str(checkpoint)).convert(str(out / form), quantization=form)
    return {name: f"{form}/model.bin" for name, form in FORMS.items()}
