"""Shapes are frozen data: JSON both ways, and every impossible size is named."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from support.images import BOXES, image_shape
from support.networks import EFFICIENT, EVEN, PRUNED, tiny_shape
from support.strategies import model_shapes, writing_shapes

from models.errors import BadFile, BadInput, CompressError
from models.kinds import Int8Form, Reads
from models.network import Network
from models.shape import DecoderShape, HeadShape, ImageShape, LayerShape, ModelShape, OutputShape, RelativeBias

CAUSAL = LayerShape(2, 4, 4, causal=True)
ALONE: dict[str, Any] = {"layers": (CAUSAL,), "output": OutputShape(), "head": None}
BEHIND: dict[str, Any] = {"decoder": DecoderShape((CAUSAL,)), "output": OutputShape(), "head": None}


@given(model_shapes() | writing_shapes())
def test_json_goes_both_ways(shape: ModelShape) -> None:
    assert ModelShape.from_json(json.loads(json.dumps(shape.to_json(), allow_nan=False))) == shape


@given(model_shapes())
def test_a_network_has_the_sizes_of_its_shape(shape: ModelShape) -> None:
    weights = Network(shape).state_dict()
    assert weights["embeddings.word.weight"].shape == (shape.vocab_size, shape.embedding_width)
    if shape.embedding_size is not None:
        assert weights["embeddings.projection.weight"].shape == (shape.hidden_size, shape.embedding_size)
    for index, layer in enumerate(shape.layers):
        width = layer.attention_width
        assert weights[f"layers.{index}.attention.query.weight"].shape == (width, shape.hidden_size)
        assert weights[f"layers.{index}.attention.output.weight"].shape == (shape.hidden_size, width)
        assert weights[f"layers.{index}.ffn.up.weight"].shape == (layer.ffn, shape.hidden_size)
        assert weights[f"layers.{index}.ffn.down.weight"].shape == (shape.hidden_size, layer.ffn)
        if shape.relative is not None and not layer.linear:
            assert weights[f"layers.{index}.attention.relative.weight"].shape == (shape.relative.buckets, layer.heads)
    for path in shape.int8_forms:
        assert f"{path}.weight_scale" in weights


def test_a_shape_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_shape().hidden_size = 3  # type: ignore[misc]
    assert hash(tiny_shape()) == hash(tiny_shape())


def test_one_layer_is_replaced() -> None:
    shape = tiny_shape(PRUNED).with_layer(1, LayerShape(2, 8, 9))
    assert shape.layers == (PRUNED[0], LayerShape(2, 8, 9), *PRUNED[2:])


def test_how_a_layer_reads_in_words() -> None:
    said = ["window 3, global tokens 2", "window 4", "linear", "full"]
    assert [layer.attention for layer in (*EFFICIENT, EVEN[0])] == said


def test_int8_is_sorted_by_path() -> None:
    forms = {"layers.1.ffn.up": Int8Form.STATIC, "embeddings.word": Int8Form.TABLE}
    shape = tiny_shape().with_int8(forms)
    assert shape.int8 == (("embeddings.word", Int8Form.TABLE), ("layers.1.ffn.up", Int8Form.STATIC))
    assert shape.int8_forms == forms
    assert shape == tiny_shape().with_int8(dict(reversed(forms.items())))


def test_positions_that_are_left_for_text() -> None:
    assert tiny_shape(max_positions=514, position_offset=2).usable_positions == 512


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"hidden_size": 1 << 25}, "hidden_size is 33554432"),
        ({"hidden_size": 3.0}, r"hidden_size is 3\.0"),
        ({"max_positions": 2, "position_offset": 2}, "usable positions is 0"),
        ({"layers": (LayerShape(1, 0, 4),)}, "layer 0 head_size is 0"),
        ({"layers": (*EVEN, LayerShape(-1, 4, 4))}, "layer 2 heads is -1"),
        ({"layers": (*EVEN, LayerShape(1, 4, -8))}, "layer 2 ffn is -8"),
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"relative": RelativeBias(3, 8)}, "3 buckets for relative distances up to 8"),
        ({"relative": RelativeBias(32, 8)}, "32 buckets for relative distances up to 8"),
        ({"relative": RelativeBias(1 << 30, 1 << 31)}, "buckets"),
        ({"layers": (LayerShape(2, 3, 4, rotary=10.0),)}, "layer 0 turns pairs of features, and head_size is 3"),
        ({"layers": (LayerShape(2, 4, 4, rotary=0.0),)}, r"layer 0 rotary is 0\.0"),
        ({"layers": (LayerShape(2, 4, 4, window=-1),)}, "layer 0 window is -1"),
        ({"layers": (LayerShape(2, 4, 4, global_tokens=1),)}, "layer 0 has global tokens, and no window"),
        ({"layers": (LayerShape(2, 4, 4, window=2, global_tokens=-1),)}, "layer 0 global_tokens is -1"),
        ({"layers": (LayerShape(2, 4, 4, window=2, global_tokens=True),)}, "layer 0 global_tokens is True"),
        ({"layers": (LayerShape(2, 4, 4, window=2, linear=True),)}, "layer 0 is linear, which has no window"),
        ({"layers": (LayerShape(2, 4, 4, linear=1),)}, "layer 0 linear is 1"),
        ({"layers": (LayerShape(2, 4, 4, normed=False),)}, "only a pre-norm layer may be without a norm"),
        ({"layers": (CAUSAL,)}, "layers are causal, and nothing is written"),
        ({"layers": (CAUSAL,), "output": OutputShape()}, "a model that writes has no head"),
        ({**ALONE, "layers": (CAUSAL, LayerShape(2, 4, 4))}, "what writes has a layer that is not causal"),
        ({**ALONE, "layers": (replace(CAUSAL, window=3),)}, "layer 0 is causal, which has no window"),
        ({**ALONE, "layers": (replace(CAUSAL, linear=True),)}, "layer 0 is causal, which has no window"),
        ({**ALONE, "layers": (replace(CAUSAL, causal=1),)}, "layer 0 causal is 1"),
        ({**ALONE, "layers": (replace(CAUSAL, cross_heads=2),)}, "only layers behind an encoder have cross_heads"),
        ({**ALONE, "layers": (replace(CAUSAL, heads=6, kv_heads=4),)}, "layer 0 has 6 heads for 4 of keys"),
        ({**ALONE, "layers": (replace(CAUSAL, kv_heads=0),)}, "layer 0 has 2 heads for 0 of keys"),
        ({**ALONE, "layers": (replace(CAUSAL, kv_heads=4),)}, "layer 0 has 2 heads for 4 of keys"),
        ({**ALONE, "layers": (replace(CAUSAL, kv_heads="2"),)}, "layer 0 has 2 heads for 2 of keys"),
        ({**ALONE, "embedding_size": 16}, "a table narrower than the network"),
        ({**ALONE, "output": OutputShape(scale=0.0)}, r"output scale is 0\.0"),
        ({**ALONE, "output": OutputShape(tied=1)}, "output tied is 1"),  # type: ignore[arg-type]
        ({**ALONE, "relative": RelativeBias(8, 4)}, "8 buckets for relative distances up to 4"),
        ({"decoder": DecoderShape((CAUSAL,))}, "a decoder without an output"),
        ({**BEHIND, "layers": (CAUSAL,)}, "an encoder has a causal layer"),
        ({**BEHIND, "decoder": DecoderShape((LayerShape(2, 4, 4),))}, "the decoder has a layer that is not causal"),
        ({**BEHIND, "decoder": DecoderShape((CAUSAL,), vocab_size=0)}, "decoder vocab_size is 0"),
        ({**BEHIND, "decoder": DecoderShape((replace(CAUSAL, heads=-1),))}, "decoder layer 0 heads is -1"),
        ({**BEHIND, "decoder": DecoderShape((replace(CAUSAL, cross_heads=-2),))}, "decoder layer 0 cross_heads is -2"),
        ({**BEHIND, "decoder": DecoderShape((CAUSAL,) * 1025)}, "1025 layers are more than 1024"),
        ({"attention_scale": "much"}, "attention_scale is much"),
        ({"embedding_norm": 1}, "embedding_norm is 1"),
        ({"head": HeadShape(("a",), reads=Reads.MEAN)}, "a head with labels reads mean"),
        ({"head": HeadShape(())}, "a head needs an output"),
        ({"head": HeadShape(("a", "b", "a"))}, "a label is named twice"),
        ({"head": HeadShape((), width=12)}, "the embedding is 12 wide"),
        ({"head": HeadShape((), width=-1, projected=True)}, "the embedding is -1 wide"),
        ({"head": HeadShape((), width=3.5, projected=True)}, r"the embedding is 3\.5 wide"),
        ({"head": HeadShape(("a", "b"), projected=True)}, "a head with labels is not projected"),
    ],
)
def test_sizes_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        tiny_shape(**{"layers": EVEN, **changes})


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(BadInput) as caught:
        tiny_shape((LayerShape(-1, 0, -2),), vocab_size=0)
    for part in ("vocab_size is 0", "layer 0 heads is -1", "layer 0 head_size is 0", "layer 0 ffn is -2"):
        assert part in str(caught.value)


@pytest.mark.parametrize("key", sorted(tiny_shape().to_json()))
def test_a_missing_or_wrong_key_is_an_error(key: str) -> None:
    for wrong in ("nonsense", [[["x"]]], {"a": 1}):
        value = tiny_shape().to_json()
        if key == "family" and wrong == "nonsense":
            continue
        value[key] = wrong
        with pytest.raises(CompressError):
            ModelShape.from_json(value)


@pytest.mark.parametrize("key", ["family", "vocab_size", "hidden_size", "layers", "head", "int8", "norm", "activation"])
def test_a_missing_key_is_named(key: str) -> None:
    value = tiny_shape().to_json()
    del value[key]
    with pytest.raises(BadFile, match=key):
        ModelShape.from_json(value)


def test_a_shape_that_was_written_before_a_key_was_made() -> None:
    value = tiny_shape().to_json()
    writing = ("decoder", "output", "biases", "attention_scale", "embedding_scale", "embedding_norm")
    for key in ("embedding_size", "relative", "gated", "image", *writing):
        del value[key]
    for key in ("normed", "dense", "boxes"):
        del value["head"][key]
    for layer in value["layers"]:
        younger = (
            "window",
            "rotary",
            "normed",
            "global_tokens",
            "linear",
            "places",
            "causal",
            "kv_heads",
            "cross_heads",
        )
        for key in younger:
            del layer[key]
    assert ModelShape.from_json(value) == tiny_shape()


def test_a_shape_of_images_goes_both_ways() -> None:
    image = ImageShape(10, 15, 4, channels=3, prefix=2)
    assert (image.grid, image.tokens, image.patch_values) == ((2, 3), 8, 48)
    shape = image_shape(PRUNED, image=image)
    assert ModelShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape
    assert (shape.usable_positions, shape.reads_first) == (8, True)


def test_what_finds_objects_says_how_many_answers_it_gives() -> None:
    image = ImageShape(8, 8, 4, channels=1, suffix=3)
    shape = image_shape(image=image, head=BOXES)
    assert ModelShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape
    assert (image.tokens, shape.answers, shape.outputs, shape.readers) == (8, 3, 8, slice(-3, None))
    assert (image_shape().answers, tiny_shape(head=HeadShape(("O",), reads=Reads.EACH)).answers) == (1, None)
    assert (image_shape().readers, image_shape(head=None).readers) == (slice(0, 1), slice(None))
    for layer in (LayerShape(4, 8, 48, window=1), LayerShape(4, 8, 48, rotary=9.0)):
        assert image_shape((layer,), image=image, head=BOXES).readers == slice(None)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: image_shape(head=BOXES), "reads learned tokens behind an image's patches, and there are none"),
        (lambda: tiny_shape(head=BOXES), "reads learned tokens behind an image's patches, and there are none"),
        (lambda: image_shape(head=replace(BOXES, reads=Reads.FIRST)), "a head with labels reads first"),
        (lambda: image_shape(head=replace(BOXES, boxes=False)), "a head with labels reads suffix"),
        (lambda: image_shape(head=replace(BOXES, labels=())), "a head without labels reads suffix"),
        (lambda: tiny_shape((LayerShape(4, 8, 48, places=True),)), "only a network of images may add the vectors"),
        (lambda: image_shape((LayerShape(4, 8, 48, places=1),)), "places is 1"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_find_objects_is_refused(build: Callable[[], ModelShape], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        build()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"height": 0}, "image height is 0"),
        ({"patch": -4}, "image patch is -4"),
        ({"width": 1 << 20}, "image width is 1048576"),
        ({"channels": 1.5}, "image channels is 1.5"),
        ({"prefix": -1}, "image prefix is -1"),
        ({"suffix": -1}, "image suffix is -1"),
        ({"suffix": 1 << 20}, "image suffix is 1048576"),
        ({"patch": 9}, "an image of 8 x 8 pixels holds no patch of 9"),
        ({"patch": 2}, "5 positions for an image of 17 tokens"),
        ({"depth": 2}, "depth"),
    ],
)
def test_an_image_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    value = image_shape().to_json()
    value["image"] |= change
    with pytest.raises((BadInput, BadFile), match=says):
        ModelShape.from_json(value)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(BadFile, match="rotary"):
        ModelShape.from_json(tiny_shape().to_json() | {"rotary": True})


def test_shapes_load_no_torch() -> None:
    code = "import sys, models.shape, models.weights, models.family; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
