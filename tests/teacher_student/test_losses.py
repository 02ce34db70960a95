from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.errors import BadInput
from models.tasks.text_classification import TextClassification
from teacher_student.losses import (
    LossWeights,
    common_relation_heads,
    hard_labels,
    hidden_mse,
    logits_kl,
    logits_mse,
    relation_kl,
)


def softmax(values):
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def drawn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def test_kl_is_hintons(temperature=3.0):
    student, teacher = drawn(5, 4), drawn(5, 4, seed=1)
    expected = 0.0
    for ours, theirs in zip(student.numpy().astype(float), teacher.numpy().astype(float), strict=True):
        p, q = softmax(theirs / temperature), softmax(ours / temperature)
        expected += temperature**2 * float((p * np.log(p / q)).sum())
    term = logits_kl(TextClassification(), student, teacher, temperature=temperature)
    assert term.size == 5
    assert float(term.total) == pytest.approx(expected, rel=1e-4)
    assert float(logits_kl(TextClassification(), student, student, temperature=temperature).total) == pytest.approx(
        0, abs=1e-6
    )


def test_squared_errors():
    student, teacher = drawn(5, 4), drawn(5, 4, seed=1)
    expected = float(((student - teacher).numpy() ** 2).mean(axis=1).sum())
    assert float(logits_mse(student, teacher).total) == pytest.approx(expected, rel=1e-5)
    assert float(hidden_mse(student, teacher).total) == pytest.approx(expected, rel=1e-5)


def test_unlabelled_rows_add_nothing():
    task = TextClassification()
    logits, targets = drawn(4, 3).requires_grad_(), torch.tensor([0, -1, 2, -1])
    term = hard_labels(task, logits, targets)
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], targets[[0, 2]], reduction="sum")
    assert term.size == 2
    torch.testing.assert_close(term.total, expected)
    none = hard_labels(task, logits, torch.full((4,), -1))
    none.total.backward()
    assert none.size == 0 and float(none.total.detach()) == 0 and float(logits.grad.abs().sum()) == 0


def straightforward_relation_kl(student, teacher, lengths, heads):
    total = 0.0
    for ours, theirs, length in zip(student, teacher, lengths, strict=True):
        for head in range(heads):
            relations = []
            for rows in (theirs, ours):
                size = rows.shape[1] // heads
                part = rows[:length, head * size : (head + 1) * size]
                relations.append([softmax(row) for row in part @ part.T / math.sqrt(size)])
            for p, q in zip(*relations, strict=True):
                total += float((p * np.log(p / q)).sum()) / heads
    return total


def test_relations_are_minilms_whatever_the_widths():
    student, teacher = drawn(2, 5, 12), drawn(2, 5, 18, seed=1)
    lengths = [5, 3]
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    term = relation_kl(student, teacher, mask, heads=3)
    expected = straightforward_relation_kl(
        student.numpy().astype(float), teacher.numpy().astype(float), lengths, heads=3
    )
    assert term.size == 8
    assert float(term.total) == pytest.approx(expected, rel=1e-4)


def test_relations_of_a_network_with_itself_are_zero_and_padding_does_not_matter():
    student, teacher = drawn(2, 4, 12), drawn(2, 4, 12, seed=1)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    assert float(relation_kl(student, student, mask, heads=4).total) == pytest.approx(0, abs=1e-6)
    before = relation_kl(student, teacher, mask, heads=4).total
    student[1, 2:], teacher[1, 2:] = 50.0, -50.0
    torch.testing.assert_close(relation_kl(student, teacher, mask, heads=4).total, before)


def test_relations_have_finite_gradients_under_padding():
    student = drawn(2, 4, 12).requires_grad_()
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    relation_kl(student, drawn(2, 4, 12, seed=1), mask, heads=4).total.backward()
    assert torch.isfinite(student.grad).all() and student.grad[0].abs().sum() > 0
    assert float(student.grad[1, 1:].abs().sum()) == 0


def test_relation_heads_divide_both_widths():
    assert common_relation_heads(12, 384, 384) == 12
    assert common_relation_heads(12, 224, 384) == 8
    assert common_relation_heads(48, 35, 384) == 1
    with pytest.raises(BadInput, match="no attention head"):
        common_relation_heads(12, 0, 384)


@pytest.mark.parametrize("wrong", [{"mse": 0.0}, {"kl": -1.0}, {"temperature": 0.0}, {"relation_heads": 0}])
def test_senseless_weights_are_refused(wrong):
    with pytest.raises(BadInput):
        LossWeights(**wrong)
