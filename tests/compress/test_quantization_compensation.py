"""Rounding that is made up for: words by the answers' gradient, projections by least squares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from support.examples import EVEN, random_rows, tiny_checkpoint, tiny_context

from compress.quantization.refit import refitted
from compress.quantization.rounding import rounded_rows
from compress.quantization.schemes import forms_of, quantize
from compress.settings import QuantizeSettings
from compress.stages.quantize import QUANTIZE
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.kinds import TABLES, Int8Form
from models.layers.packed import PackedEmbedding, TwoBitEmbedding, pack_rows, pack_rows_in_two_bits
from models.sublayers import sublayers_of

ROWS = random_rows(200)
OTHERS = random_rows(60, seed=1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def with_tables(checkpoint: Checkpoint) -> Checkpoint:
    forms = forms_of(checkpoint, embeddings="int2")
    return quantize(checkpoint, {path: form for path, form in forms.items() if form in TABLES})


def distance(one: Checkpoint, other: Checkpoint) -> float:
    answers = [evaluate_logits(each.network(), OTHERS) for each in (one, other)]
    return float(np.square(answers[0] - answers[1]).mean())


@pytest.mark.parametrize("changes", [{}, {"pre_norm": True}], ids=["norms after", "norms before"])
def test_answers_come_nearer_to_those_before_rounding(changes: dict[str, bool]) -> None:
    whole = tiny_checkpoint(**changes)
    rounded = with_tables(whole)
    found = replace(whole, weights={**whole.weights, **refitted(whole, rounded, ROWS)})
    assert distance(whole, with_tables(found)) < 0.8 * distance(whole, rounded)


def test_where_nothing_was_rounded_nothing_changes() -> None:
    whole = tiny_checkpoint()
    found = refitted(whole, whole, ROWS)
    assert set(found) == {f"{one.reader}.{name}" for one in sublayers_of(whole.shape) for name in ("weight", "bias")}
    for name, weight in found.items():
        assert torch.allclose(weight, whole.weights[name], atol=1e-6), name


def test_a_sublayer_of_which_nothing_is_left_is_refitted_by_its_bias() -> None:
    whole = tiny_checkpoint((EVEN[0], replace(EVEN[0], heads=0), replace(EVEN[0], ffn=0)))
    found = refitted(whole, with_tables(whole), ROWS)
    for path in ("layers.1.attention.output", "layers.2.ffn.down"):
        assert found[f"{path}.weight"].shape[1] == 0
        assert not torch.equal(found[f"{path}.bias"], whole.weights[f"{path}.bias"])


@pytest.mark.parametrize("embeddings", ["int2", "int4"])
def test_the_stage_compensates_where_it_is_asked_to(embeddings: Literal["int2", "int4"], tmp_path: Path) -> None:
    whole = tiny_checkpoint()
    context = tiny_context(tmp_path, whole, train=ROWS)
    plain = QuantizeSettings(embeddings=embeddings, sensitivity=False, calibration_examples=200)
    errors = [
        distance(whole, QUANTIZE.run(whole, plain.model_copy(update={"compensate": yes}), context).product)
        for yes in (False, True)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_compensation_needs_examples(tmp_path: Path) -> None:
    whole = tiny_checkpoint()
    with pytest.raises(BadInput, match="needs examples"):
        QUANTIZE.run(whole, QuantizeSettings(compensate=True, sensitivity=False), tiny_context(tmp_path, whole))


def test_rounded_rows_hold_few_values_and_are_packed_as_they_are() -> None:
    weight = torch.randn(20, 24, generator=torch.Generator().manual_seed(0))
    for form, values in ((Int8Form.TABLE2, 4), (Int8Form.TABLE4, 16)):
        rows = rounded_rows(weight, form, torch.eye(24, dtype=torch.float64))
        assert max(len(row.unique()) for row in rows) <= values
        assert torch.allclose(rows, unpacked(rows, form), atol=1e-5)


def test_rows_are_rounded_where_the_answer_does_not_look() -> None:
    weight = torch.randn(50, 24, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(24, 1, generator=torch.Generator().manual_seed(1)).double()
    moments = direction @ direction.t() * 100
    found = rounded_rows(weight, Int8Form.TABLE2, moments) - weight
    plain = unpacked(weight, Int8Form.TABLE2) - weight
    seen = [float((error.double() @ direction).square().sum()) for error in (found, plain)]
    assert seen[0] < 0.5 * seen[1]


def unpacked(weight: torch.Tensor, form: Int8Form) -> torch.Tensor:
    pack, table = (pack_rows_in_two_bits, TwoBitEmbedding) if form is Int8Form.TABLE2 else (pack_rows, PackedEmbedding)
    made = table(*weight.shape)
    made.weight, made.weight_scale = pack(weight)
    read: torch.Tensor = made(torch.arange(len(weight)))
    return read
