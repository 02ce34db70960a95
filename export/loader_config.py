"""What `config.json` says beside a graph, in the keys of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.family import head_keys, image_keys
from models.shape import ModelShape

# Without it transformers.js looks in a browser for a file whose name ends in `_quantized`; ours has no ending, whatever
# it holds.
_WITHOUT_SUFFIX: Final = {"transformers.js_config": {"dtype": "fp32"}}


def loader_config(shape: ModelShape, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what loaders of the graph are told: the family's `config`, or else what any of them has a name for."""
    return {**(_sizes(shape) if config is None else config), **_WITHOUT_SUFFIX}


def _sizes(shape: ModelShape) -> dict[str, Any]:
    return {
        "model_type": shape.family,
        "architectures": [],
        **_reads(shape),
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": len(shape.layers),
        **(head_keys(shape.head) if shape.head else {}),
    }


def _reads(shape: ModelShape) -> dict[str, Any]:
    if shape.image is not None:
        return image_keys(shape.image)
    return {
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_positions,
        "type_vocab_size": shape.type_vocab_size,
        "pad_token_id": shape.pad_token_id,
    }
