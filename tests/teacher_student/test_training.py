from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import BadInput
from models.shape import HeadShape
from models.tasks.text_classification import TextClassification
from teacher_student.distillation import fine_tune, scorer
from teacher_student.losses import Term
from teacher_student.objectives import LabelObjective
from teacher_student.schedule import make_plan
from teacher_student.training import fit
from teacher_student.word_gradient import WordGradient


class KilledError(Exception):
    pass


def killed_at(step):
    def progress(label):
        def tick(done, total):
            if label == "training" and done == step:
                raise KilledError

        return tick

    return progress


def run(model, data, schedule, scratch, **changes):
    network = model.network()
    options = {"objective": LabelObjective(TextClassification()), "evaluate": None, "seed": 3, **changes}
    history = fit(network, data=data, schedule=schedule, scratch=scratch, **options)
    return network.state_dict(), history


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_training_learns_and_leaves_the_checkpoint_alone(make_model, lessons, make_schedule):
    model = make_model(layers=2, deviation=0.1)
    before = {name: value.clone() for name, value in model.weights.items()}
    score = scorer(lessons.task, lessons.validation, None)
    trained, history = fine_tune(model, lessons=lessons, schedule=make_schedule(epochs=30))
    assert same(dict(model.weights), before)
    assert history.points[-1].losses["labels"] < 0.5 * history.points[0].losses["labels"]
    assert score(trained.network()) == history.best_score > score(model.network())
    assert history.examples == 30 * 48 and history.tokens == 30 * int(lessons.train.offsets[-1])


def test_scoring_says_how_far_it_is_too(make_model, lessons, make_schedule):
    ends = []

    def watched(label):
        return lambda done, total: ends.append(label) if done == total else None

    fine_tune(make_model(layers=1), lessons=replace(lessons, progress=watched), schedule=make_schedule(epochs=2))
    assert ends == ["evaluate", "evaluate", "training"]


def test_same_seed_same_weights(make_model, make_data, make_schedule, tmp_path):
    model, data, schedule = make_model(layers=1), make_data(), make_schedule(epochs=1)
    torch.manual_seed(1)
    first, _ = run(model, data, schedule, tmp_path / "a")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again, _ = run(model, data, schedule, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are not touched
    other, _ = run(model, data, schedule, tmp_path / "c", seed=4)
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("step", [1, 6, 7, 11, 12])
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(make_model, make_data, make_schedule, tmp_path, step):
    model, data = make_model(layers=2), make_data()
    assert model.shape.dropout > 0 and model.shape.attention_dropout > 0
    score = scorer(TextClassification(), make_data(rows=20, seed=1), None)
    expected, told = run(model, data, make_schedule(), tmp_path / "whole", evaluate=score)
    schedule = make_schedule(save_every_s=0)
    with pytest.raises(KilledError):
        run(model, data, schedule, tmp_path / "killed", evaluate=score, progress=killed_at(step))
    taken = []

    class Counting:
        learned = nn.Module()
        settings = LabelObjective(TextClassification()).settings

        def __call__(self, network, batch):
            taken.append(1)
            return LabelObjective(TextClassification())(network, batch)

    got, history = run(model, data, schedule, tmp_path / "killed", evaluate=score, objective=Counting())
    assert len(taken) == 12 - step
    assert same(expected, got)
    assert history.points == told.points and history.best_step == told.best_step
    assert history.examples == told.examples


def test_a_state_older_than_the_kill_is_enough(make_model, make_data, make_schedule, tmp_path):
    model, data = make_model(layers=1), make_data()
    expected, _ = run(model, data, make_schedule(), tmp_path / "whole")
    with pytest.raises(KilledError):
        run(model, data, make_schedule(save_every_s=0), tmp_path / "killed", progress=killed_at(4))
    with pytest.raises(KilledError):  # five more steps, none of them kept
        run(model, data, make_schedule(save_every_s=1e9), tmp_path / "killed", progress=killed_at(9))
    assert [place.name for place in (tmp_path / "killed").iterdir()] == ["step-000000004"]
    got, _ = run(model, data, make_schedule(save_every_s=1e9), tmp_path / "killed")
    assert same(expected, got)


def test_other_arguments_do_not_resume(make_model, make_data, make_schedule, tmp_path):
    model, data = make_model(layers=1), make_data()
    schedule = make_schedule(save_every_s=0, epochs=1)
    run(model, data, schedule, tmp_path / "x")
    for changes in ({"seed": 4}, {"schedule": replace(schedule, clip=0.5)}, {"model": make_model(layers=1, seed=7)}):
        given = {"model": model, "schedule": schedule, "seed": 3, **changes}
        fresh, _ = run(given["model"], data, given["schedule"], tmp_path / "y", seed=given["seed"])
        got, _ = run(given["model"], data, given["schedule"], tmp_path / "x", seed=given["seed"])
        assert same(fresh, got)


def test_a_broken_state_costs_only_time(make_model, make_data, make_schedule, tmp_path):
    model, data, schedule = make_model(layers=1), make_data(), make_schedule(save_every_s=0)
    expected, _ = run(model, data, make_schedule(), tmp_path / "whole")
    with pytest.raises(KilledError):
        run(model, data, schedule, tmp_path / "killed", progress=killed_at(5))
    file = tmp_path / "killed" / "step-000000005" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    got, _ = run(model, data, schedule, tmp_path / "killed")
    assert same(expected, got)


def test_the_best_weights_are_kept(make_model, make_data, make_schedule, tmp_path):
    model, data = make_model(layers=1), make_data()
    seen = []
    scores = iter([0.2, 0.9, 0.9, 0.1])

    def evaluate(network):
        assert not network.training
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(scores)

    weights, history = run(model, data, make_schedule(epochs=4), tmp_path, evaluate=evaluate)
    assert same(weights, seen[2])  # the last of equals
    assert (history.best_step, history.best_score) == (18, 0.9)
    assert [point.score for point in history.points] == [0.2, 0.9, 0.9, 0.1]


class Broken:
    def __init__(self):
        self.learned = nn.Module()
        self.settings = {}

    def __call__(self, network, batch):
        logits = network(**batch.inputs)
        return {"labels": Term(logits.sum() * math.nan, len(logits))}


def test_a_loss_that_is_no_number_is_an_error(make_model, make_data, make_schedule, tmp_path):
    with pytest.raises(BadInput, match="no longer a number at step 1 of 12.*Lower the learning rate"):
        run(make_model(layers=1), make_data(), make_schedule(save_every_s=0), tmp_path, objective=Broken())
    assert not list(tmp_path.iterdir())


def test_frozen_weights_stay(make_model, make_data, make_schedule, tmp_path):
    model = make_model(layers=1)
    weights, _ = run(model, make_data(), make_schedule(frozen=("embeddings.",)), tmp_path)
    changed = {name for name in weights if not torch.equal(weights[name], model.weights[name])}
    assert changed and not any(name.startswith("embeddings.") for name in changed)
    with pytest.raises(BadInput, match="nothing to train"):
        run(model, make_data(), make_schedule(frozen=("",)), tmp_path)


def test_unused_words_are_not_decayed(make_model, make_data, make_schedule, tmp_path):
    model = make_model(layers=1)
    weights, _ = run(model, make_data(), make_schedule(weight_decay=0.5), tmp_path)
    name = "embeddings.word.weight"
    assert torch.equal(weights[name][1], model.weights[name][1])  # [UNK] never occurs
    assert not torch.equal(weights[name][2:], model.weights[name][2:])


def test_bf16_trains(make_model, make_data, make_schedule, tmp_path):
    schedule = make_schedule()
    schedule = replace(schedule, compute=replace(schedule.compute, bf16=True))
    weights, history = run(make_model(layers=1), make_data(), schedule, tmp_path)
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert history.points[-1].losses["labels"] < history.points[0].losses["labels"] + 0.5


def test_learning_rate_rises_and_falls(make_schedule):
    schedule = make_schedule(learning_rate=1.0, warmup=0.2)
    rates = [schedule.learning_rate_at(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_plan_follows_epochs_and_budget(make_schedule):
    lengths = np.full(40, 5, dtype=np.int64)
    whole = make_plan(lengths, make_schedule(evaluations_per_epoch=2), seed=0)
    assert whole.steps == 10 and whole.evaluations == {2, 5, 7, 10}
    for epoch in range(2):
        rows = np.concatenate(whole.batches[epoch * 5 : epoch * 5 + 5])
        assert sorted(rows) == list(range(40))
    assert make_plan(lengths, make_schedule(epochs=1.4), seed=0).steps == 7
    assert make_plan(lengths, make_schedule(epochs=0.01), seed=0).steps == 1
    assert make_plan(lengths, make_schedule(token_budget=81), seed=0).steps == 3
    assert make_plan(lengths, make_schedule(token_budget=10**6), seed=0).steps == 10
    with pytest.raises(BadInput, match="no examples"):
        make_plan(np.zeros(0, dtype=np.int64), make_schedule(), seed=0)


def test_senseless_schedules_are_refused_all_at_once(make_schedule):
    with pytest.raises(BadInput, match=r"epochs is 0; batch_size is 0; learning_rate is -1"):
        make_schedule(epochs=0, batch_size=0, learning_rate=-1)


def test_fine_tuning_without_labels_is_refused(make_model, lessons, make_data, make_schedule):
    with pytest.raises(BadInput, match="no example has a label"):
        fine_tune(make_model(), lessons=replace(lessons, train=make_data(labelled=False)), schedule=make_schedule())
    two = make_model(head=HeadShape(("a", "b")))
    strange = replace(make_data(), targets=np.full(len(make_data()), 2))
    with pytest.raises(BadInput, match="label number 2, but the model has 2 labels"):
        fine_tune(two, lessons=replace(lessons, train=strange), schedule=make_schedule())


def test_the_word_tables_gradient_is_the_dense_one(make_model, make_data):
    network, data = make_model(layers=1).network(), make_data()
    words = WordGradient(network)
    table = network.embeddings.word
    for rows in (np.arange(8), np.arange(20, 24)):  # the second must not keep the first one's rows
        batch = data.batch(rows)
        network(**batch.inputs).square().sum().backward()
        words.densify()
        got = table.weight.grad.clone()
        network.zero_grad()
        table.sparse = False
        network(**batch.inputs).square().sum().backward()
        torch.testing.assert_close(got, table.weight.grad, rtol=1e-5, atol=1e-6)
        network.zero_grad()
        table.sparse = True
    words.release()
    assert not table.sparse and table.weight.grad is None
