"""Sentence embeddings: pairs to judge by, a teacher to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.examples import tiny_tokenizing

from models.columns import Wanted
from models.data import Table
from models.errors import BadInput
from models.shape import HeadShape
from models.task import Given
from models.tasks import task_named
from models.token_cache import encode_table
from models.tokenizing import Encoding


def test_embeddings_are_judged_by_pairs(tmp_path: Path) -> None:
    task = task_named("sentence-embedding")
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\nw2 w3,w4,1.5\nw5,w6 w7,4\n")
    read = task.read(Wanted(str(tmp_path / "pairs.csv"), label="score"), None)
    assert (read.texts, read.pairs) == (["w2 w3", "w4", "w5", "w6 w7"], None)
    data = encode_table(read, tiny_tokenizing(), task.targets(read, ()), max_length=10, cache=tmp_path)
    assert data.labelled.tolist() == [False, True, False, True]
    embeddings = np.array([[1, 0], [1, 1], [0, 2], [0, 3]], dtype=np.float32)
    np.testing.assert_allclose(task.statistics(embeddings, data, ()), [[0.5**0.5, 1.5], [1, 4]])
    np.testing.assert_allclose(task.predict(embeddings, data), [np.nan, 0.5**0.5, np.nan, 1])
    answer = task.answer([embeddings[1:2]], (), Given("w4", None, [Encoding([4], [0], truncated=False)]))
    assert answer.values == {"embedding": [1.0, 1.0]}


def test_embeddings_are_learnt_from_a_teacher_alone(tmp_path: Path) -> None:
    task = task_named("sentence-embedding")
    (tmp_path / "labels.csv").write_text("text,label\nw2,1\n")
    assert task.read(Wanted(str(tmp_path / "labels.csv")), None).labels is None
    with pytest.raises(BadInput, match="learnt from a teacher, not from labels"):
        task.head_of(Table(["w2"], None, [1.0], "rows.csv", "0"))
    with pytest.raises(BadInput, match=r"losses.labels: sentence embeddings have no loss on labels"):
        task.loss(torch.zeros(2, 3), torch.zeros(2))


def test_a_teachers_embedding_is_learnt_up_to_its_length() -> None:
    task = task_named("sentence-embedding")
    teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(task.divergence(3 * teacher, teacher, temperature=2.0)) == pytest.approx(0, abs=1e-6)
    apart = task.divergence(torch.tensor([[0.0, 1.0], [0.0, 2.0]]), teacher, temperature=2.0)
    assert float(apart) == pytest.approx(2 + 0.5 + 0.5)  # one is turned by a right angle, and falls upon the other
    narrow = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert float(task.divergence(narrow, teacher, temperature=2.0)) == pytest.approx(0, abs=1e-6)
    apart = task.divergence(torch.tensor([[0.0, 1.0, 0.0]] * 2), teacher, temperature=2.0)
    assert float(apart) == pytest.approx(0.5 + 0.5)  # of another width: where a text lies among others alone


def test_a_head_with_labels_gives_no_embedding() -> None:
    with pytest.raises(BadInput, match=r"this head gives 2 labels.*Its own task is text-classification"):
        task_named("sentence-embedding").check(HeadShape(("a", "b")), where="teacher")
