"""What the families that write have in common: settings under several names, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import BadInput, Unsupported
from models.family import Config
from models.kinds import Activation, member
from models.shape import LayerShape, ModelShape
from models.shape_problems import MAX_LAYERS

WRITERS = ("ForConditionalGeneration", "LMHeadModel", "ForCausalLM", "MTModel", "Model", "WithLMHeadModel")
ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "tanh": Activation.TANH,
}
TRANSLATION = "text2text-generation"  # what an encoder with a decoder does that does not say it


def refuse_heads(config: Config) -> None:
    """Raise Unsupported where a config's architecture ends in something else than words."""
    for name in config.get("architectures") or ():
        if not str(name).endswith(WRITERS):
            raise Unsupported(
                f"architecture {name}: of this family the models that write are read", where="config.json"
            )


def activation_of(config: Config, key: str, default: str) -> Activation:
    """Return the activation that a config names.

    Raises:
        BadInput: it is not known.
    """
    return member(Activation, str(config.get(key) or default), ACTIVATIONS, where="config.json")


def activation_name(shape: ModelShape) -> str:
    """Return the name that a config has for a shape's activation."""
    return next(name for name, activation in ACTIVATIONS.items() if activation is shape.activation)


def padding_of(config: Config) -> int:
    """Return the padding token: the config's, or the token that ends a text, as `transformers` pads."""
    ends = config.get("eos_token_id")
    first = ends[0] if isinstance(ends, list) and ends else ends
    padding = config.get("pad_token_id")
    return int(padding if padding is not None else first or 0)


def head_size(hidden: int, heads: int) -> int:
    """Return the size of heads that divide the hidden size.

    Raises:
        BadInput: they do not divide it.
    """
    if heads < 1 or hidden % heads:
        raise BadInput(f"hidden size {hidden} is not a multiple of {heads} heads", where="config.json")
    return hidden // heads


def stack(layer: LayerShape, count: int) -> tuple[LayerShape, ...]:
    """Return `count` layers of one size.

    Raises:
        BadInput: there are more than any model has.
    """
    if not 0 <= count <= MAX_LAYERS:
        raise BadInput(f"{count} layers, and no stack has more than {MAX_LAYERS}", where="config.json")
    return (layer,) * count


def base_of(config: Config) -> float:
    """Return the base of the wavelengths that queries and keys are turned with.

    Raises:
        Unsupported: wavelengths that are scaled.
        BadInput: something else than settings of them.
    """
    ropes = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(ropes, Mapping):
        raise BadInput(f"rope_parameters is {ropes!r}", where="config.json")
    kind = ropes.get("rope_type", ropes.get("type", "default"))
    if kind != "default":
        raise Unsupported(
            f"wavelengths of rotary positions that are scaled ({kind!r})",
            where="config.json",
            fix="Read are models whose rope_type is 'default'.",
        )
    return float(ropes.get("rope_theta", config.get("rope_theta", 10_000.0)))


def rope_keys(base: float | None) -> dict[str, Any]:
    """Return the settings of the wavelengths, as configs of before and since `transformers` 5 say them."""
    return {"rope_theta": base, "rope_parameters": {"rope_type": "default", "rope_theta": base}}
