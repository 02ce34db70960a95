"""Questions: windows of their contexts, the tokens of their answers, and the best answer of all windows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import WORDS, tiny_tokenizing
from support.vocabularies import word_piece_checkpoint
from torch.nn.functional import cross_entropy

from models.columns import Wanted
from models.data import Table
from models.encoded import Encoded
from models.errors import BadFile, BadInput
from models.kinds import Reads
from models.questions import read_questions
from models.shape import HeadShape
from models.task import Given
from models.tasks import task_named
from models.tasks.question_answering import answer_f1
from models.token_cache import encode_table

TASK = task_named("question-answering")
CONTEXT = "w10 w11 w12 w13 w14 w15 w16 w17"
QUESTIONS = Table(
    ["w2 w3", "w4", "w5 w6", "w7"],
    [CONTEXT, CONTEXT, "w20 w21 w22", CONTEXT],
    [(("w12 w13", 8),), (("w16", 24), ("w17", 28)), (), (("w10", 0),)],
    "rows.json",
    "0",
)


def encoded(folder: Path, table: Table = QUESTIONS, *, max_length: int = 8, shared: int = 2) -> Encoded:
    targets = TASK.targets(table, ("start", "end"))
    return encode_table(table, tiny_tokenizing(), targets, max_length=max_length, cache=folder, shared=shared)


def logits_of(data: Encoded) -> Any:
    """Return the logits of a model that is right in every window."""
    return 10 * np.asarray(data.targets)[:, [0, 2]].astype(np.float32)


def test_a_context_is_read_in_windows_that_share_tokens(tmp_path: Path) -> None:
    data = encoded(tmp_path)
    assert data.examples.tolist() == [0, 0, 1, 1, 2, 3, 3]
    rows = [data.tokens.ids[start:end].tolist() for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
    assert rows[0] == [2, 3, 10, 11, 12, 13, 14, 15]
    assert rows[1] == [2, 3, 14, 15, 16, 17]
    assert rows[4] == [5, 6, 20, 21, 22]
    words = [CONTEXT[start:end] for start, end in data.spans[: int(data.offsets[2])]]
    assert words == ["", "", *CONTEXT.split()[:6], "", "", *CONTEXT.split()[4:]]


def test_targets_are_the_first_answers_tokens_or_the_first_token(tmp_path: Path) -> None:
    data = encoded(tmp_path)
    found = []
    for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        window = np.asarray(data.targets[start:end])
        assert window[:, 3].tolist() == [1, *[0] * (len(window) - 1)]
        found.append((window[:, 0].tolist().index(1), window[:, 2].tolist().index(1)))
    assert found == [(4, 5), (0, 0), (7, 7), (2, 2), (0, 0), (1, 1), (0, 0)]  # two windows share w15 and w16
    assert data.labelled.all()
    unlabelled = encoded(tmp_path, Table(QUESTIONS.texts, QUESTIONS.pairs, None, "rows.json", "1"))
    assert not unlabelled.labelled.any()


def test_a_model_that_is_right_scores_one(tmp_path: Path) -> None:
    data = encoded(tmp_path)
    right = logits_of(data)
    assert TASK.statistics(right, data, ("start", "end")).tolist() == [[1.0, 1.0]] * 4
    np.testing.assert_array_equal(TASK.predict(right, data), data.targets)
    wrong = np.roll(right, 1, axis=0)
    f1, exact = TASK.statistics(wrong, data, ("start", "end")).mean(axis=0)
    assert exact < f1 < 0.7  # an answer that shares words with the right one is not it


def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    data = encoded(tmp_path)
    logits = torch.randn(len(data.targets), 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor(np.asarray(data.targets))
    expected = torch.zeros(())
    for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        for output, column in ((0, 0), (1, 2)):
            place = targets[start:end, column].argmax()
            expected = expected + cross_entropy(logits[start:end, output][None], place[None])
    torch.testing.assert_close(TASK.loss(logits, targets), expected)
    unlabelled = targets.clone()
    unlabelled[:, [0, 2]] = -1
    both = TASK.loss(torch.cat([logits, logits]), torch.cat([targets, unlabelled]))
    torch.testing.assert_close(both, expected)
    (gradient,) = torch.autograd.grad(both, logits)
    assert bool(torch.isfinite(gradient).all())


def test_the_best_span_of_all_windows_is_answered() -> None:
    read = tiny_tokenizing().windows(["w2 w3"], [CONTEXT], max_length=8, shared=2)[0]
    logits = [np.zeros((len(one.ids), 2), dtype=np.float32) for one in read]
    logits[0][4, 0] = logits[0][5, 1] = 3.0  # w12 w13
    logits[1][4, 0] = logits[1][5, 1] = 4.0  # w16 w17
    logits[1][5, 0] = logits[1][4, 1] = 9.0  # an end before its start
    answer = TASK.answer(logits, ("start", "end"), Given("w2 w3", CONTEXT, read))
    assert answer.values == {"answer": "w17", "start": 28, "end": 31, "score": 13.0}
    logits[1][5, 0] = 0.0
    answer = TASK.answer(logits, ("start", "end"), Given("w2 w3", CONTEXT, read))
    assert (answer.text, answer.values["start"]) == ("w16", 24)
    for each in logits:
        each[0] = 20.0
    assert TASK.answer(logits, ("start", "end"), Given("w2 w3", CONTEXT, read)).text == "(no answer)"


@pytest.mark.parametrize(
    ("given_", "right", "score"),
    [
        ("The Norman", "Norman.", 1.0),
        ("in the 10th century", "10th century", 0.8),
        ("an apple", "pear", 0.0),
        ("", "", 1.0),
        ("", "pear", 0.0),
        ("a the", "", 1.0),
    ],
)
def test_f1_is_squads(given_: str, right: str, score: float) -> None:
    assert answer_f1(given_, right) == pytest.approx(score)


@settings(deadline=None)
@given(
    st.lists(st.integers(2, WORDS - 1), min_size=0, max_size=9),
    st.lists(st.integers(2, WORDS - 1), min_size=0, max_size=40),
    st.integers(8, 20),
    st.integers(1, 2),
)
def test_windows_hold_every_token_of_the_context(first: Any, second: Any, longest: int, shared: int) -> None:
    texts = [" ".join(f"w{number}" for number in numbers) for numbers in (first, second)]
    (windows,) = tiny_tokenizing().windows(texts[:1], texts[1:], max_length=longest, shared=shared)
    seen: dict[tuple[int, int], int] = {}
    for one in windows:
        assert len(one.ids) == len(one.spans) == len(one.words) <= longest
        assert one.truncated == (len(first) > longest // 2)
        seen |= {span: number for span, number in zip(one.spans, one.ids, strict=True) if span[1] > span[0]}
    assert [number for _, number in sorted(seen.items())] == second


def test_windows_that_cannot_be() -> None:
    with pytest.raises(BadInput, match="windows of 6 tokens are too short beside the 3 special ones"):
        word_piece_checkpoint().tokenizing.windows(["w2"], ["w3"], max_length=6, shared=4)
    with pytest.raises(BadInput, match="1 texts need a second text each"):
        tiny_tokenizing().windows(["w2"], None, max_length=8, shared=2)
    with pytest.raises(BadInput, match="text 1 is not a text"):
        tiny_tokenizing().windows(["w2"], ["\ud800"], max_length=8, shared=2)
    tokenizing = word_piece_checkpoint().tokenizing
    assert len(tokenizing.windows(["w2"], ["w3 w4 w5 w6 w7 w8 w9"], max_length=9, shared=2)[0]) > 1
    assert [len(one.ids) for one in tokenizing.encode(["w2 w3 w4 w5"], max_length=4)] == [4]  # cut as before


def test_a_head_of_other_numbers_is_refused() -> None:
    TASK.check(HeadShape(("start", "end"), reads=Reads.EACH), where="teacher")
    for head in (HeadShape(("a", "b")), HeadShape(("a", "b", "c"), reads=Reads.EACH)):
        with pytest.raises(BadInput, match="an answer has a start and an end, and this head gives"):
            TASK.check(head, where="teacher")
    with pytest.raises(BadInput, match="no column of answers"):
        TASK.head_of(Table(["w2"], ["w3"], None, "rows.json", "0"))


SQUAD = {
    "version": "2.0",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "Ada wrote it.",
                    "qas": [
                        {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}] * 2},
                        {"id": "2", "question": "Where?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def rows_of(path: Path) -> Any:
    table = read_questions(Wanted(str(path)))
    return table.texts, table.pairs, table.labels


def test_squads_files_and_tables_are_read_alike(tmp_path: Path) -> None:
    expected = (["Who?", "Where?"], ["Ada wrote it."] * 2, [(("Ada", 0), ("Ada", 0)), ()])
    (tmp_path / "squad.json").write_text(json.dumps(SQUAD))
    (tmp_path / "squad.json.gz").write_bytes(gzip.compress(json.dumps(SQUAD, indent=1).encode()))
    rows = [
        {"question": "Who?", "context": "Ada wrote it.", "answers": {"text": ["Ada", "Ada"], "answer_start": [0, 0]}},
        {"question": "Where?", "context": "Ada wrote it.", "answers": {"text": [], "answer_start": []}},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for name in ("squad.json", "squad.json.gz", "rows.jsonl"):
        assert rows_of(tmp_path / name) == expected
    for row in rows:
        del row["answers"]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert rows_of(tmp_path / "rows.jsonl") == (*expected[:2], None)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": ["Eva"], "answer_start": [0]}, r"row 1 has the answer 'Eva' at character 0.*says 'Ada'.*from 0"),
        ({"text": ["Ada"], "answer_start": [-13]}, "row 1 has the answer 'Ada' at character -13"),
        ({"text": ["Ada"]}, "row 1 has answers that are not text and answer_start"),
        ({"text": [], "answer_start": [1]}, "row 1 has answers that are not text and answer_start"),
    ],
)
def test_answers_that_are_not_there(answers: Any, message: str, tmp_path: Path) -> None:
    row = {"question": "Who?", "context": "Ada wrote it.", "answers": answers}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match=message):
        read_questions(Wanted(str(tmp_path / "rows.jsonl")))


@pytest.mark.parametrize("value", [{"data": [{"paragraphs": [{"qas": []}]}]}, {"data": [{}]}, {"data": [3]}])
def test_broken_files(value: Any, tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(json.dumps(value))
    with pytest.raises(BadFile, match=r"there are no questions|not in the form of SQuAD"):
        read_questions(Wanted(str(tmp_path / "squad.json")))


def test_no_context(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Who?"}))
    with pytest.raises(BadInput, match="no column of contexts"):
        read_questions(Wanted(str(tmp_path / "rows.jsonl")))
