"""What is measured of an artifact, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.examples import random_rows, tiny_checkpoint

from compress.goal_settings import Gates, MeasureSettings, SizeGate
from compress.machine import same_rows
from compress.measure import Probe, Subject, measure, measure_agreement
from compress.record import Measurement
from compress.verdicts import judge
from models.encoded import Encoded
from models.errors import BadInput
from models.tasks.text_classification import TextClassification

SETTINGS = MeasureSettings(rounds=4, texts=4)


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """Return a random checkpoint that is to be measured."""
    (tmp_path / "model").mkdir()
    tiny_checkpoint().save(tmp_path / "model")
    return Probe.open(tmp_path / "model", "0" * 64)


def taken(probe: Probe, data: Encoded, folder: Path) -> Measurement:
    return measure(
        Subject(probe, data),
        TextClassification(),
        name="rows",
        reference=None,
        settings=SETTINGS,
        scratch=folder / "scratch",
    )


def test_weights_are_read_when_they_are_used(probe: Probe) -> None:
    assert len(probe.layers) == 2
    (probe.directory / "model.safetensors").unlink()
    assert probe.shape.labels
    with pytest.raises(Exception, match=r"model\.safetensors"):
        probe.logits(random_rows(3))


def test_the_scores_are_those_of_the_answers(probe: Probe, tmp_path: Path) -> None:
    data = random_rows(40)
    found = taken(probe, data, tmp_path)
    answers = probe.logits(data).argmax(axis=1)
    assert found.predictions == answers.tolist()
    assert found.estimate == pytest.approx((answers == np.asarray(data.targets)).mean())
    assert found.low <= found.estimate <= found.high
    (beside,) = found.besides
    each = []
    for number in range(3):
        given, expected = answers == number, np.asarray(data.targets) == number
        each.append(2 * (given & expected).sum() / (given.sum() + expected.sum()))
    assert (beside.name, beside.estimate) == ("macro_f1", pytest.approx(np.mean(each)))
    assert beside.low <= beside.estimate <= beside.high
    assert found.latency is None
    assert found.bytes == sum(file.stat().st_size for file in (tmp_path / "scratch" / "candidate").iterdir())


def test_agreement_is_with_the_answers_before(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    tiny_checkpoint(seed=3).save(tmp_path / "other")
    other = Probe.open(tmp_path / "other", "1" * 64)
    data, task = random_rows(60, labels=0), TextClassification()
    like = taken(probe, random_rows(8), tmp_path)
    found = measure_agreement(Subject(probe, data), Subject(other, data), task, name="elsewhere", like=like)
    same = probe.logits(data).argmax(axis=1) == other.logits(data).argmax(axis=1)
    assert 0 < same.sum() < 60
    assert found.estimate == pytest.approx(same.mean())
    assert (found.data, found.metric, found.bytes) == ("elsewhere", "agreement", like.bytes)
    itself = measure_agreement(Subject(probe, data), Subject(probe, data), task, name="elsewhere", like=like)
    assert itself.estimate == 1.0


def test_a_model_that_overflows_is_named(tmp_path: Path) -> None:
    (tmp_path / "wild").mkdir()
    calm = tiny_checkpoint()
    weights = {name: value * 1e25 if ".ffn." in name else value for name, value in calm.weights.items()}
    replace(calm, weights=weights).save(tmp_path / "wild")
    wild = Probe.open(tmp_path / "wild", "0" * 64)
    with pytest.raises(BadInput, match=r"no finite answer for \d+ of 40 examples"):
        taken(wild, random_rows(40), tmp_path)


@pytest.mark.parametrize(("most", "passed"), [(1000.0, True), (0.001, False)])
def test_a_size_gate_may_name_megabytes(probe: Probe, tmp_path: Path, most: float, passed: bool) -> None:
    found = taken(probe, random_rows(8), tmp_path)
    gates = Gates(size=SizeGate(max_mb=most))
    (verdict,) = judge(gates, stage="export", teacher=found, candidate=found)
    assert verdict.passed is passed


def test_the_same_texts_are_timed_where_one_has_more_rows() -> None:
    def rows(examples: list[int]) -> Encoded:
        return replace(random_rows(len(examples)), examples=np.array(examples, dtype=np.int64))

    reference, other = rows([0, 0, 1, 2]), rows([0, 0, 0, 1, 2, 2])
    assert same_rows(other, reference, np.array([3, 0, 1, 2])).tolist() == [4, 0, 1, 3]
    assert same_rows(reference, other, np.array([2, 5])).tolist() == [1, 3]  # the last of the example
    assert same_rows(random_rows(3), random_rows(3), np.array([2, 0])).tolist() == [2, 0]
