"""The stage that trims: what it chooses by, what it tells, and what is milder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.examples import tiny_context
from support.vocabularies import word_piece_checkpoint

from compress.settings import TrimSettings
from compress.stage import Context
from compress.stages.trim import milder, needed_positions, run
from models.checkpoint import Checkpoint
from models.data import Table
from models.encoded import Encoded
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.token_cache import encode_table

TRAIN = ["w3 w7", "w3 w9 w3", "w7 w3"]
VALIDATION = ["w3 w3", "w3 w40", "w7 w9"]

MakeContext = Callable[..., Context]


@pytest.fixture
def parent() -> Checkpoint:
    """Return a checkpoint whose tokenizer knows words and characters."""
    return word_piece_checkpoint()


@pytest.fixture
def make_context(parent: Checkpoint, tmp_path: Path) -> MakeContext:
    """Return what makes a context of these texts, read by any tokenizer."""

    def make(*, train: list[str] | None = None, pairs: list[str] | None = None) -> Context:
        texts = {"train": TRAIN if train is None else train, "validation": VALIDATION}

        def encoded(role: str, reader: Checkpoint) -> Encoded:
            second = pairs if role == "train" else None
            table = Table(texts[role], second, None, role, f"{role}-{len(texts[role])}-{second}")
            longest = reader.shape.usable_positions
            return encode_table(table, reader.tokenizing, None, max_length=longest, cache=tmp_path / "cache")

        context = tiny_context(tmp_path, parent, **{role: encoded(role, parent) for role in texts})
        return replace(context, encoded=encoded, lessons=lambda copies, reader: encoded("train", reader))

    return make


def words(checkpoint: Checkpoint) -> set[str]:
    pieces = checkpoint.tokenizing._tokenizer.get_vocab()
    return {piece for piece in pieces if piece.startswith("w") and len(piece) > 1}


def test_the_training_texts_choose_and_the_validation_texts_are_told_of(
    parent: Checkpoint, make_context: MakeContext
) -> None:
    made = run(parent, TrimSettings(), make_context())
    assert words(made.product) == {"w3", "w7", "w9"}  # w40 stands in the validation texts alone
    told = made.details
    assert told["pieces"] == {"before": 74, "after": 31}
    assert told["positions"] == {"before": 40, "after": 40}
    assert told["token_types"] == {"before": 2, "after": 0}
    assert told["covered"] == 1.0
    # "w40" is now w, ##4 and ##0: one text of three is cut otherwise.
    assert (told["validation"]["texts"], told["validation"]["changed"]) == (3, 1)
    tokens = told["validation"]["tokens_per_text"]
    assert tokens["after"] - tokens["before"] == pytest.approx(2 / 3)


def test_rare_pieces_go_when_they_may(parent: Checkpoint, make_context: MakeContext) -> None:
    assert words(run(parent, TrimSettings(min_count=2), make_context()).product) == {"w3", "w7"}
    made = run(parent, TrimSettings(max_pieces=3), make_context())
    assert words(made.product) == {"w3"}  # after the two special tokens of every text
    assert made.details["covered"] == pytest.approx(10 / 13)


def test_positions_are_cut_to_twice_the_longest_training_text(parent: Checkpoint, make_context: MakeContext) -> None:
    train = make_context().train
    long = word_piece_checkpoint(max_positions=200)
    assert needed_positions(long, train) == 64
    assert needed_positions(parent, train) == 40  # there are no more
    longer = replace(
        train, offsets=np.asarray([0, 33]), content=replace(train.tokens, ids=np.zeros(33, dtype=np.int32))
    )
    assert needed_positions(long, longer) == 128
    made = run(parent, TrimSettings(positions=4), make_context())
    assert made.details["validation"]["truncated"] == {"before": 0, "after": 1}
    with pytest.raises(BadInput, match="more than the model's 40"):
        run(parent, TrimSettings(positions=64), make_context())


def test_token_types_stay_where_there_are_pairs_or_where_it_is_said(
    parent: Checkpoint, make_context: MakeContext
) -> None:
    pairs = run(parent, TrimSettings(), make_context(pairs=["w2", "w3", "w4"]))
    assert pairs.product.shape.type_vocab_size == 2
    assert run(parent, TrimSettings(fold_token_types=False), make_context()).product.shape.type_vocab_size == 2


def test_a_trimmed_model_learns_to_read_what_rare_words_fall_back_to(
    parent: Checkpoint, make_context: MakeContext
) -> None:
    context = make_context(train=[f"w{n} w{n + 1}" for n in range(2, 40)] * 2)
    train = context.train
    wanted = evaluate_logits(context.teacher.network(), train)

    def error(settings: dict[str, Any]) -> float:
        product = run(parent, TrimSettings.model_validate({"min_count": 100} | settings), context).product
        found = evaluate_logits(product.network(), context.encoded("train", product))
        return float(np.square(found - wanted).mean())

    recovery = {"epochs": 6.0, "batch_size": 8, "learning_rate": 2e-3}
    assert error({"recovery": recovery}) < error({}) / 2
    with pytest.raises(BadInput, match="tokenizer of its own"):
        error({"recovery": recovery | {"losses": {"hidden": 1.0}}})


def test_without_training_texts_nothing_is_chosen(parent: Checkpoint, make_context: MakeContext) -> None:
    context = make_context()
    with pytest.raises(BadInput, match="needs examples"):
        run(parent, TrimSettings(), replace(context, examples={"validation": context.validation}))


def test_milder_settings_keep_more_until_all_is_kept() -> None:
    details = {"pieces": {"before": 10_000, "after": 100}}
    tried = [TrimSettings(min_count=5, max_pieces=5000)]
    while (milder_ := milder(tried[-1], details)) is not None:
        tried.append(milder_)
    seen = [(5, 5000), (2, 7501), (1, None)]
    assert [(one.min_count, one.max_pieces) for one in tried] == seen + [(1, None)] * 4
    assert [one.first for one in tried] == [0, 0, 0, 4096, 6144, 9216, 10_000]
