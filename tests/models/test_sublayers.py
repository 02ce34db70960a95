"""What can be cut out of a network, by its shape alone: as many weights as the shapes of smaller networks say."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from support.networks import tiny_shape
from support.strategies import model_shapes, writing_shapes
from support.writing_shapes import SHAPES

from models.network import Network
from models.shape import ModelShape
from models.sublayers import Part, features, sublayers_of, with_units


def sizes(shape: ModelShape) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: value.shape for name, value in Network(shape.with_int8({})).state_dict().items()}


@given(model_shapes() | writing_shapes(), st.data())
def test_a_unit_is_what_a_smaller_network_lacks(shape: ModelShape, data: st.DataObject) -> None:
    shape, counts = shape.with_int8({}), {one.path: one.units for one in sublayers_of(shape)}
    assert with_units(shape, counts) == shape
    filled = [one for one in sublayers_of(shape) if one.units]
    if not filled:
        return
    one = data.draw(st.sampled_from(filled))
    smaller = with_units(shape, {**counts, one.path: one.units - 1})
    before, after = sizes(shape), sizes(smaller)
    wanted = {f"{one.reader}.weight": (1, one.width), f"{one.path}.relative.weight": (1, one.columns)}
    for path, width in one.writers:
        wanted |= {f"{path}.{kind}": (0, width) for kind in ("weight", "bias")}
    for name, size in before.items():
        axis, less = wanted.get(name, (0, 0))
        assert list(after[name]) == [length - less * (at == axis) for at, length in enumerate(size)], name


def test_the_parts_of_what_reads_and_of_what_writes() -> None:
    paths = [one.path for one in sublayers_of(SHAPES["marian"])]
    stacks = ("layers.0", "layers.1", "decoder.layers.0")
    expected = [f"{stack}.attention" for stack in stacks] + ["decoder.layers.0.cross"]
    assert paths == expected + [f"{stack}.ffn" for stack in stacks]
    assert not any(one.part is Part.CROSS for one in sublayers_of(tiny_shape()))


def test_queries_that_share_keys_are_one_unit() -> None:
    (first, second, third, *_) = sublayers_of(SHAPES["llama"])
    assert (first.units, first.width, first.columns, first.shares_keys) == (2, 16, 2, True)
    assert (second.units, second.width, second.shares_keys) == (1, 24, True)
    assert (third.units, third.shares_keys) == (0, False)
    counts = {one.path: one.units for one in sublayers_of(SHAPES["llama"])}
    smaller = with_units(SHAPES["llama"], {**counts, "layers.0.attention": 1, "layers.1.attention": 0})
    assert [(layer.heads, layer.kv_heads) for layer in smaller.layers] == [(2, 1), (0, 0), (0, None)]
    assert replace(smaller, layers=SHAPES["llama"].layers) == SHAPES["llama"]


def test_the_features_of_units_stand_behind_one_another() -> None:
    assert features((0, 2), 3) == [0, 1, 2, 6, 7, 8]
    assert features((), 3) == []
