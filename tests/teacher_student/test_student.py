from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.errors import BadInput
from models.kinds import Int8Form
from models.shape import HeadShape, LayerShape, RelativeBias
from teacher_student.layer_map import LayerMap, evenly_spread, layer_map
from teacher_student.student import build_student, student_shape, with_dropout


@pytest.mark.parametrize(
    ("count", "of", "kept"), [(3, 6, (0, 2, 5)), (2, 6, (0, 5)), (1, 6, (0,)), (6, 6, tuple(range(6)))]
)
def test_layers_are_spread_with_first_and_last(count, of, kept):
    assert evenly_spread(count, of) == kept


def test_every_even_spread_rises():
    for of in range(1, 25):
        for count in range(1, of + 1):
            kept = evenly_spread(count, of)
            assert len(set(kept)) == count and list(kept) == sorted(kept)
            assert kept[0] == 0 and (count == 1 or kept[-1] == of - 1)


def test_layer_maps():
    assert layer_map(LayerMap.UNIFORM, student=3, teacher=6) == ((0, 0), (1, 2), (2, 4), (3, 6))
    assert layer_map(LayerMap.UNIFORM, student=2, teacher=2) == ((0, 0), (1, 1), (2, 2))
    assert layer_map(LayerMap.LAST, student=3, teacher=6) == ((3, 6),)
    with pytest.raises(BadInput):
        layer_map(LayerMap.LAST, student=0, teacher=6)


def test_a_student_of_all_layers_is_the_teacher(make_model, make_data):
    teacher = make_model()
    student = build_student(teacher, student_shape(teacher.shape, layers=4), seed=9)
    batch = make_data().batch(torch.arange(8).numpy())
    inputs = (batch.inputs["input_ids"], batch.inputs["attention_mask"])
    assert torch.equal(student.network()(*inputs), teacher.network()(*inputs))


def test_copied_layers_are_the_chosen_ones(make_model):
    teacher = make_model(layers=6)
    plan = student_shape(teacher.shape, layers=(1, 4))
    student = build_student(teacher, plan, seed=0)
    assert plan.sources == (1, 4)
    for place, source in enumerate((1, 4)):
        for name in ("attention.query.weight", "ffn.down.bias", "ffn_norm.weight"):
            assert torch.equal(student.weights[f"layers.{place}.{name}"], teacher.weights[f"layers.{source}.{name}"])
    assert torch.equal(student.weights["head.output.weight"], teacher.weights["head.output.weight"])


@pytest.mark.parametrize("gated", [False, True])
def test_a_narrow_ffn_keeps_the_strongest_neurons(make_model, gated):
    teacher = make_model(layers=1, gated=gated)
    weights = dict(teacher.weights)
    weak = torch.arange(24) % 3 == 0
    weights["layers.0.ffn.down.weight"] = weights["layers.0.ffn.down.weight"] * torch.where(weak, 1e-4, 1.0)
    teacher = replace(teacher, weights=weights)
    student = build_student(teacher, student_shape(teacher.shape, layers=1, ffn=16), seed=0)
    assert torch.equal(student.weights["layers.0.ffn.up.weight"], weights["layers.0.ffn.up.weight"][~weak])
    assert torch.equal(student.weights["layers.0.ffn.down.weight"], weights["layers.0.ffn.down.weight"][:, ~weak])


@pytest.mark.parametrize("relative", [None, RelativeBias()], ids=str)
def test_dropping_heads_that_write_nothing_changes_nothing(make_model, make_data, relative):
    teacher = make_model(layers=2, relative=relative)
    weights = {name: value.clone() for name, value in teacher.weights.items()}
    for layer in range(2):
        weights[f"layers.{layer}.attention.output.weight"][:, 4:8] = 0
    teacher = replace(teacher, weights=weights)
    student = build_student(teacher, student_shape(teacher.shape, layers=2, heads=3), seed=0)
    assert [layer.heads for layer in student.shape.layers] == [3, 3]
    ids = make_data().batch(torch.arange(1).numpy()).inputs["input_ids"]
    torch.testing.assert_close(student.network()(ids), teacher.network()(ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("request_", [{"layers": 5}, {"layers": 0}, {"layers": (2, 1)}, {"layers": (0, 4)}])
def test_impossible_layers_are_refused(make_model, request_):
    with pytest.raises(BadInput, match="layers"):
        student_shape(make_model().shape, **request_)


@pytest.mark.parametrize("request_", [{"ffn": 25}, {"ffn": 0}, {"heads": 5}])
def test_impossible_widths_are_refused(make_model, request_):
    with pytest.raises(BadInput, match="teacher of"):
        student_shape(make_model().shape, layers=2, **request_)


def test_a_quantized_teacher_is_refused(make_model):
    teacher = make_model(int8=(("layers.0.ffn.up", Int8Form.DYNAMIC),))
    with pytest.raises(BadInput, match="quantized"):
        build_student(teacher, student_shape(teacher.shape, layers=2), seed=0)


def test_a_narrower_shape_gets_projected_tables(make_model):
    teacher = make_model()
    shape = replace(teacher.shape, hidden_size=8, layers=(LayerShape(2, 4, 12),))
    student = build_student(teacher, shape, seed=0)
    words, theirs = student.weights["embeddings.word.weight"], teacher.weights["embeddings.word.weight"]
    # The best rank-8 table keeps the largest 8 singular values, so inner products are as near as rank 8 allows.
    values = torch.linalg.svdvals(theirs)
    torch.testing.assert_close(torch.linalg.svdvals(words), values[:8], rtol=1e-4, atol=1e-5)
    assert student.network()(torch.ones(1, 3, dtype=torch.int64)).shape == (1, 2)


def test_factorised_tables_are_kept_at_another_hidden_size(make_model):
    teacher = make_model(embedding_size=6)
    shape = replace(teacher.shape, hidden_size=8, layers=(LayerShape(2, 4, 12),))
    student = build_student(teacher, shape, seed=0)
    for name in ("word", "position", "norm"):
        assert torch.equal(student.weights[f"embeddings.{name}.weight"], teacher.weights[f"embeddings.{name}.weight"])
    assert student.weights["embeddings.projection.weight"].shape == (8, 6)


def test_a_wider_shape_and_a_deeper_one_are_drawn_where_they_do_not_fit(make_model):
    teacher = make_model(layers=2)
    wider = build_student(teacher, replace(teacher.shape, hidden_size=20, layers=(LayerShape(5, 4, 30),)), seed=0)
    assert wider.weights["embeddings.word.weight"].shape[1] == 20
    deeper = build_student(teacher, replace(teacher.shape, layers=(LayerShape(4, 4, 24),) * 3), seed=0)
    name = "attention.query.weight"
    assert torch.equal(deeper.weights[f"layers.1.{name}"], teacher.weights[f"layers.1.{name}"])
    assert deeper.weights[f"layers.2.{name}"].abs().sum() > 0


def test_same_seed_same_student(make_model):
    teacher = make_model()
    shape = replace(teacher.shape, hidden_size=8, layers=(LayerShape(2, 4, 12),))
    first, again, other = (build_student(teacher, shape, seed=seed).weights for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.ffn.up.weight"], other["layers.0.ffn.up.weight"])


def test_a_vocabulary_below_the_tokenizers_is_refused(make_model):
    teacher = make_model()
    with pytest.raises(BadInput, match="table has 10 rows"):
        build_student(teacher, replace(teacher.shape, vocab_size=10), seed=0)


def test_dropout_is_set_everywhere(make_model):
    shape = with_dropout(make_model(), 0.3).shape
    assert shape.dropout == shape.attention_dropout == 0.3
    assert isinstance(shape.head, HeadShape) and shape.head.dropout == 0.3
    assert with_dropout(make_model(), None).shape.dropout == 0.1
