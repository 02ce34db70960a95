"""A trimmed checkpoint answers as before on texts of kept pieces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.networks import TURNED, WINDOWS
from support.vocabularies import word_piece_checkpoint

from compress.quantization.schemes import quantize
from compress.trimming.checkpoint import trim_checkpoint
from export.lower import lower
from export.session import open_session, run
from export.target import CPU
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.kinds import Int8Form, Positions
from models.shape import RelativeBias

TEXT, PAIR = "w3 w7 w3", "w11 w2"
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"family": "roberta", "position_offset": 2, "pad_token_id": 1, "type_vocab_size": 1},
    "distilbert": {"family": "distilbert", "type_vocab_size": 0},
    "computed positions": {"positions": Positions.SINUSOIDAL},
    "pre-norm": {"pre_norm": True},
    "turned": {"family": "modernbert", "layers": WINDOWS, **TURNED},
    "narrow tables": {"family": "albert", "embedding_size": 12},
    "distances": {"family": "mpnet", "position_offset": 2, "type_vocab_size": 0, "relative": RelativeBias()},
}


def numbers_of(checkpoint: Checkpoint, *texts: str) -> set[int]:
    return {number for one in checkpoint.tokenizing.encode(list(texts), max_length=30) for number in one.ids}


def logits(checkpoint: Checkpoint, text: str, pair: str | None = None) -> torch.Tensor:
    (found,) = checkpoint.tokenizing.encode([text], None if pair is None else [pair], max_length=30)
    ids, kinds = (torch.tensor([values]) for values in (found.ids, found.token_type_ids))
    with torch.inference_mode():
        answer: torch.Tensor = checkpoint.network()(ids, None, kinds)
    return answer


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_texts_of_kept_pieces_are_answered_as_before(shape: str, fold: bool, tmp_path: Path) -> None:
    before = word_piece_checkpoint(**SHAPES[shape])
    after, told = trim_checkpoint(before, numbers_of(before, TEXT), positions=16, fold_token_types=fold)
    torch.testing.assert_close(logits(after, TEXT), logits(before, TEXT), rtol=1e-5, atol=1e-6)
    # Special tokens, characters in both forms (with "#", which may start a text as the pieces do), and two words.
    assert len(told.rows) == after.shape.vocab_size == after.weights["embeddings.word.weight"].shape[0] == 4 + 24 + 2
    assert after.shape.usable_positions == 16
    assert after.tokenizing == told.tokenizing
    after.save(tmp_path)
    assert Checkpoint.load(tmp_path).shape == after.shape
    assert logits(after, "w49").isfinite().all()


@pytest.mark.parametrize(("shape", "folded"), [("bert", True), ("roberta", True), ("computed positions", False)])
def test_token_types_are_folded_into_learned_positions(shape: str, folded: bool) -> None:
    before = word_piece_checkpoint(**SHAPES[shape])
    after, _ = trim_checkpoint(before, (), positions=16, fold_token_types=True)
    assert after.shape.type_vocab_size == (0 if folded else before.shape.type_vocab_size)
    graph = lower(after.network(), CPU)
    assert ("token_type_ids" in {port.name for port in graph.graph.input}) is not folded
    ids = np.asarray([after.tokenizing.encode([TEXT], max_length=16)[0].ids], dtype=np.int64)
    found = run(open_session(graph.SerializeToString(), threads=1), {"input_ids": ids})
    assert np.abs(found - logits(after, TEXT).numpy()).max() < 1e-5


def test_pairs_are_answered_as_before_where_token_types_stay() -> None:
    before = word_piece_checkpoint()
    after, _ = trim_checkpoint(before, numbers_of(before, TEXT, PAIR), positions=16, fold_token_types=False)
    torch.testing.assert_close(logits(after, TEXT, PAIR), logits(before, TEXT, PAIR), rtol=1e-5, atol=1e-6)


def test_the_padding_and_the_longest_text_follow() -> None:
    before = word_piece_checkpoint(pad_token_id=3)
    before = replace(
        before, reader=replace(before.tokenizing, config={**before.tokenizing.config, "model_max_length": 512})
    )
    after, told = trim_checkpoint(before, (), positions=8, fold_token_types=True)
    assert after.shape.pad_token_id == told.numbers[3]
    assert after.tokenizing.config["model_max_length"] == 8
    kept, _ = trim_checkpoint(before, (), positions=40, fold_token_types=True)
    assert kept.shape.max_positions == before.shape.max_positions


def test_the_parent_is_left_as_it_was() -> None:
    before = word_piece_checkpoint()
    weights = {name: weight.clone() for name, weight in before.weights.items()}
    trim_checkpoint(before, (), positions=8, fold_token_types=True)
    assert before.weights.keys() == weights.keys()
    assert all(torch.equal(before.weights[name], weight) for name, weight in weights.items())


def test_what_cannot_be_trimmed_is_refused() -> None:
    before = word_piece_checkpoint()
    with pytest.raises(BadInput, match="41 positions are more than the model's 40"):
        trim_checkpoint(before, (), positions=41, fold_token_types=True)
    int8 = quantize(before, {"embeddings.word": Int8Form.TABLE}, {})
    with pytest.raises(BadInput, match="quantized"):
        trim_checkpoint(int8, (), positions=8, fold_token_types=True)
