from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.quantization.schemes import quantize
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.kinds import Int8Form
from models.layers.quantized import FakeQuantizedLinear
from models.network import Network
from models.progress import silent
from models.shape import HeadShape, LayerShape
from teacher_student import hidden_states
from teacher_student.compute import Compute
from teacher_student.distillation import Reading, distill
from teacher_student.hidden_states import kept_hidden, nearest_projection
from teacher_student.losses import LossWeights
from teacher_student.objectives import DistillationObjective
from teacher_student.schedule import Schedule
from teacher_student.student import build_student, student_shape, with_dropout
from teacher_student.teacher_cache import teacher_outputs


class KilledError(Exception):
    pass


EVERYTHING = LossWeights(kl=1.0, mse=1.0, hidden=1.0, relations=1.0, labels=1.0, relation_heads=4)


def agreement(teacher, student, data):
    ours, theirs = (evaluate_logits(one.network(), data).argmax(axis=1) for one in (student, teacher))
    return float((ours == theirs).mean())


def objective_for(teacher, student, lessons, weights):
    outputs = teacher_outputs(
        teacher,
        lessons.train,
        hidden=kept_hidden(weights, student.shape, teacher.shape, tokens=int(lessons.train.offsets[-1])),
        cache=lessons.cache,
        compute=Compute(),
    )
    return DistillationObjective(
        task=lessons.task, teacher=teacher.network(), student=student.shape, outputs=outputs, weights=weights
    )


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(make_model, lessons, pre_norm):
    teacher = make_model(layers=3, pre_norm=pre_norm)
    objective = objective_for(teacher, teacher, lessons, replace(EVERYTHING, labels=0.0))
    terms = objective(teacher.network(), lessons.train.batch(np.arange(10)))
    assert set(terms) == {"kl", "mse", "hidden", "relations"}
    for name, term in terms.items():
        # Hidden states are kept in float16, whose error is 2^-11 of a value.
        assert float(term.total.detach()) / term.size == pytest.approx(0, abs=2e-5 if name != "hidden" else 1e-6)


def test_hidden_states_that_are_too_many_are_computed_instead(make_model, lessons, monkeypatch):
    teacher, student = make_model(layers=4), make_model(layers=2, seed=1)
    terms = []
    for limit in (1e9, 0):
        monkeypatch.setattr(hidden_states, "KEPT_BYTES", limit)
        objective = objective_for(teacher, student, lessons, EVERYTHING)
        assert bool(objective.outputs.hidden) == bool(limit)
        terms.append(objective(student.network(), lessons.train.batch(np.arange(10))))
    for name, kept in terms[0].items():
        torch.testing.assert_close(terms[1][name].total, kept.total, rtol=2e-3, atol=1e-5)
        assert terms[1][name].size == kept.size
    trained, _ = distill(
        teacher, student, lessons=lessons, weights=LossWeights(hidden=1.0), schedule=Schedule(epochs=0.2, batch_size=8)
    )
    assert not torch.equal(trained.weights["layers.0.ffn.up.weight"], student.weights["layers.0.ffn.up.weight"])


def test_answers_alone_are_learnt_with_fewer_states_computed(make_model, lessons, monkeypatch):
    """Without losses on states the last layer's other tokens are left out, which changes no gradient."""
    teacher, student = make_model(layers=3), make_model(layers=2, seed=1)
    batch = lessons.train.batch(np.arange(10))
    grads = []
    for states in (False, True):
        objective = objective_for(teacher, student, lessons, LossWeights(hidden=float(states)))
        network, passes = student.network(), []
        whole = network.features
        monkeypatch.setattr(
            network, "features", lambda whole=whole, passes=passes, **inputs: passes.append(1) or whole(**inputs)
        )
        term = objective(network, batch)["mse"]
        assert len(passes) == states
        term.total.backward()
        grads.append({name: weight.grad for name, weight in network.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])


def test_several_teachers_teach_the_mean_of_their_logits(make_model, lessons):
    teachers = [make_model(layers=3, seed=seed) for seed in (0, 5)]
    student = make_model(layers=2, seed=1)
    readings = tuple(Reading(one, lessons.train, lessons.validation) for one in teachers[1:])
    taught = replace(lessons, ensemble=readings)
    schedule = Schedule(epochs=12.0, batch_size=16, learning_rate=3e-3)

    def distances(many):
        trained, _ = distill(teachers[0], student, lessons=many, weights=LossWeights(), schedule=schedule)
        found = evaluate_logits(trained.network(), lessons.train)
        answers = [evaluate_logits(one.network(), lessons.train) for one in teachers]
        return [float(np.square(found - wanted).mean()) for wanted in (answers[0], sum(answers) / 2)]

    alone, together = distances(replace(lessons, scratch=lessons.scratch / "alone")), distances(taught)
    assert alone[0] < alone[1]
    assert together[1] < together[0]


def test_every_part_moves_what_it_should(make_model, lessons):
    teacher = make_model(layers=4)
    shape = replace(teacher.shape, hidden_size=8, layers=(LayerShape(2, 6, 12),) * 2)
    student = build_student(teacher, shape, seed=1)
    for part, moved, untouched in (
        ("kl", "head.output.weight", None),
        ("labels", "head.output.weight", None),
        ("hidden", "layers.1.ffn.down.weight", "head.output.weight"),
        ("relations", "layers.1.attention.value.weight", "layers.1.ffn.up.weight"),
    ):
        parts = {"kl": 0.0, "mse": 0.0, "hidden": 0.0, "relations": 0.0, "labels": 0.0, part: 1.0}
        objective = objective_for(teacher, student, lessons, LossWeights(**parts))
        network = student.network()
        terms = objective(network, lessons.train.batch(np.arange(10)))
        assert set(terms) == {part}
        terms[part].total.backward()
        weights = dict(network.named_parameters())
        assert float(weights[moved].grad.abs().sum()) > 0
        assert untouched is None or weights[untouched].grad is None
        if part == "hidden":
            assert all(float(weight.grad.abs().sum()) > 0 for weight in objective.learned.parameters())


def test_the_nearest_projection_is_that_of_least_squares():
    generator = torch.Generator().manual_seed(0)
    states, wanted = torch.randn(400, 5, generator=generator), torch.randn(400, 7, generator=generator) + 3
    weight, bias = nearest_projection(states, wanted)
    solved = torch.linalg.lstsq(torch.cat([states, torch.ones(400, 1)], dim=1), wanted).solution
    torch.testing.assert_close(weight, solved[:-1].t(), atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(bias, solved[-1], atol=1e-3, rtol=1e-3)
    few, _ = nearest_projection(states[:3], wanted[:3])  # fewer tokens than channels
    assert few.isfinite().all()


def test_projections_begin_near_the_teacher(make_model, lessons):
    teacher = make_model(layers=4)
    student = build_student(teacher, replace(teacher.shape, hidden_size=8, layers=(LayerShape(2, 6, 12),) * 2), seed=1)
    objective = objective_for(teacher, student, lessons, LossWeights(mse=0.0, hidden=1.0))
    network, batch = student.network(), lessons.train.batch(np.arange(len(lessons.train)))
    drawn = float(objective(network, batch)["hidden"].total.detach())
    objective.begin(network, lessons.train, seed=0)
    fitted = float(objective(network, batch)["hidden"].total.detach())
    assert fitted < 0.7 * drawn
    for weight in objective.learned.parameters():  # no step of its own would do better
        weight.data += 0.02
    assert float(objective(network, batch)["hidden"].total.detach()) > fitted
    alike = objective_for(teacher, teacher, lessons, LossWeights(hidden=1.0))
    alike.begin(teacher.network(), lessons.train, seed=0)
    assert not list(alike.learned.parameters())


@pytest.mark.parametrize("labelled", [True, False])
def test_distilling_brings_the_student_near_its_teacher(make_model, lessons, make_data, make_schedule, labelled):
    teacher = make_model(layers=4)
    lessons = replace(
        lessons, train=make_data(rows=160, labelled=labelled), validation=make_data(rows=40, seed=1, labelled=labelled)
    )
    student = build_student(teacher, student_shape(teacher.shape, layers=2, ffn=16), seed=0)
    unseen = make_data(rows=200, seed=2)
    weights = replace(EVERYTHING, labels=0.0) if not labelled else replace(EVERYTHING, labels=0.01)
    trained, history = distill(teacher, student, lessons=lessons, weights=weights, schedule=make_schedule(epochs=20))
    assert trained.shape == student.shape
    assert agreement(teacher, trained, unseen) > max(0.8, agreement(teacher, student, unseen))
    assert history.points[-1].losses["kl"] < 0.5 * history.points[0].losses["kl"]


def test_the_teachers_outputs_are_computed_once(make_model, lessons, make_schedule, monkeypatch):
    teacher = make_model(layers=2)
    student = build_student(teacher, student_shape(teacher.shape, layers=1), seed=0)
    calls = []
    original = Network.features

    def counted(self, **inputs):
        if len(self.layers) == 2:
            calls.append(1)
        return original(self, **inputs)

    monkeypatch.setattr(Network, "features", counted)
    weights = LossWeights(mse=1.0, hidden=1.0, relations=1.0)
    for scratch in ("a", "b"):
        given = replace(lessons, scratch=lessons.scratch / scratch)
        distill(teacher, student, lessons=given, weights=weights, schedule=make_schedule(epochs=1))
        if scratch == "a":
            assert calls
            calls.clear()
    assert not calls


def test_rounding_while_training_is_what_int8_does(make_model, lessons, make_schedule, monkeypatch):
    teacher = make_model(layers=2)
    rounded = []
    original = FakeQuantizedLinear.forward
    monkeypatch.setattr(
        FakeQuantizedLinear, "forward", lambda self, x: rounded.append(self.rounding) or original(self, x)
    )
    schedule = make_schedule(epochs=2, int8_epochs=1)
    trained, history = distill(teacher, teacher, lessons=lessons, weights=LossWeights(), schedule=schedule)
    assert rounded == sorted(rounded)  # first none, then all
    assert {True, False} == set(rounded)
    assert history.best_step == history.points[-1].step  # only the last evaluation is of what rounds
    assert trained.weights.keys() == teacher.weights.keys()
    assert not torch.equal(trained.weights["layers.0.ffn.up.weight"], teacher.weights["layers.0.ffn.up.weight"])


def test_words_are_rounded_all_along_and_kept_in_float(make_model, lessons, make_schedule):
    teacher = with_dropout(make_model(layers=2), 0.0)
    schedule = make_schedule(epochs=4, words=Int8Form.TABLE2)
    trained, _ = distill(teacher, teacher, lessons=lessons, weights=LossWeights(), schedule=schedule)
    plain, _ = distill(teacher, teacher, lessons=lessons, weights=LossWeights(), schedule=make_schedule(epochs=4))
    assert trained.shape == teacher.shape
    assert trained.weights.keys() == teacher.weights.keys()
    table, other = (one.weights["embeddings.word.weight"] for one in (trained, plain))
    assert not torch.equal(table, other)
    assert not torch.equal(table, teacher.weights["embeddings.word.weight"])  # the table learns too
    # What learned with rounded words is nearer to the teacher when its words are rounded: a third of the error.
    data = lessons.train
    rounded = [
        evaluate_logits(quantize(one, {"embeddings.word": Int8Form.TABLE2}).network(), data) for one in (trained, plain)
    ]
    wanted = evaluate_logits(teacher.network(), data)
    errors = [float(np.square(one - wanted).mean()) for one in rounded]
    assert errors[0] < 0.6 * errors[1]


def test_what_cannot_be_is_refused(make_model, lessons, make_schedule):
    teacher = make_model(layers=2)
    options = {"lessons": lessons, "weights": LossWeights(), "schedule": make_schedule()}
    with pytest.raises(BadInput, match="labels"):
        distill(teacher, make_model(head=HeadShape(("a", "b"))), **options)
    with pytest.raises(BadInput, match="quantized"):
        distill(teacher, make_model(int8=(("layers.0.ffn.up", Int8Form.DYNAMIC),)), **options)
    gone = replace(teacher, shape=teacher.shape.with_layer(1, LayerShape(0, 4, 24)))
    with pytest.raises(BadInput, match="no attention head"):
        distill(teacher, gone, **{**options, "weights": LossWeights(relations=1.0)})


def test_a_killed_distillation_resumes_only_with_the_same_losses(make_model, lessons, make_schedule):
    teacher = make_model(layers=2)
    student = build_student(teacher, replace(teacher.shape, hidden_size=8, layers=(LayerShape(2, 4, 12),)), seed=0)
    schedule = make_schedule(epochs=1)

    def killing(label):
        def tick(done, total):
            if label == "training" and done == 4:
                raise KilledError

        return tick

    def trained(scratch, weights, progress=silent, save_every_s=1e9):
        given = replace(lessons, scratch=lessons.scratch / scratch, progress=progress)
        model, history = distill(
            teacher, student, lessons=given, weights=weights, schedule=replace(schedule, save_every_s=save_every_s)
        )
        return model.weights, history

    expected, _ = trained("whole", EVERYTHING)
    with pytest.raises(KilledError):
        trained("killed", EVERYTHING, killing, 0)
    other, history = trained("killed", replace(EVERYTHING, kl=0.5))
    assert history.examples == 48
    assert not torch.equal(other["head.output.bias"], expected["head.output.bias"])
    fresh, _ = trained("fresh", replace(EVERYTHING, kl=0.5))
    assert all(torch.equal(fresh[name], other[name]) for name in fresh)
    got, _ = trained("killed", EVERYTHING)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("step", [3, 6, 9])
def test_killed_before_or_while_it_rounds_it_ends_the_same(make_model, lessons, make_schedule, step):
    teacher = make_model(layers=1)

    def killing(label):
        def tick(done, total):
            if label == "training" and done == step:
                raise KilledError

        return tick

    def trained(scratch, progress=silent):
        given = replace(lessons, scratch=lessons.scratch / scratch, progress=progress)
        schedule = make_schedule(epochs=2, int8_epochs=1, save_every_s=0)
        return distill(teacher, teacher, lessons=given, weights=LossWeights(), schedule=schedule)

    expected, told = trained("whole")
    with pytest.raises(KilledError):
        trained("killed", killing)
    got, history = trained("killed")
    assert all(torch.equal(expected.weights[name], got.weights[name]) for name in expected.weights)
    assert history.points == told.points
    assert history.best_step == told.best_step


def test_a_student_with_a_tokenizer_of_its_own_learns_from_logits_alone(make_model, make_schedule, lessons):
    teacher, student = make_model(), make_model(layers=2, seed=1)
    # The student reads every text backwards; the teacher must still be asked about it forwards.
    backwards = replace(
        lessons.train, content=replace(lessons.train.tokens, ids=lessons.train.tokens.ids.copy()), digest="backwards"
    )
    for start, end in zip(lessons.train.offsets, lessons.train.offsets[1:], strict=False):
        backwards.tokens.ids[start:end] = lessons.train.tokens.ids[start:end][::-1]
    own = replace(lessons, train=backwards, teacher_train=lessons.train, validation=None)
    schedule = make_schedule(epochs=8)
    trained, _ = distill(teacher, student, lessons=own, weights=LossWeights(mse=1.0), schedule=schedule)
    wanted = evaluate_logits(teacher.network(), lessons.train)
    error = [np.square(evaluate_logits(one.network(), backwards) - wanted).mean() for one in (student, trained)]
    assert error[1] < error[0] / 2
    for weights in (LossWeights(mse=1.0, hidden=1.0), LossWeights(mse=1.0, relations=1.0, relation_heads=4)):
        with pytest.raises(BadInput, match="tokenizer of its own"):
            distill(teacher, student, lessons=own, weights=weights, schedule=schedule)


def test_a_student_that_reads_longer_texts_is_told_so(make_model, make_schedule, lessons):
    teacher = make_model(layers=2)
    student = build_student(teacher, replace(teacher.shape, max_positions=32), seed=0)
    longer = replace(lessons, teacher_train=replace(lessons.train, digest="cut to 16"))
    assert longer.one_tokenizer  # the same tokens: no text is longer than both read
    distill(teacher, student, lessons=longer, weights=LossWeights(hidden=1.0), schedule=make_schedule(epochs=0.2))
    cut = lessons.train.drawn(40, seed=0)
    with pytest.raises(BadInput, match=r"texts of up to 32 tokens and its teacher of up to 16.*data\.max_length: 16"):
        distill(
            teacher,
            student,
            lessons=replace(lessons, teacher_train=cut),
            weights=LossWeights(hidden=1.0),
            schedule=make_schedule(),
        )
