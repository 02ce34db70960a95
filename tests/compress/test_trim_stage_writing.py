"""The stage that trims what writes: sources and targets choose, and what the teacher wrote where it was learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.examples import tiny_context
from support.writing_tokenizers import LINES

from compress.architectures import new_network
from compress.settings import ArchitectureSettings, TrimSettings
from compress.stage import Context
from compress.stages.trim import run, tokens_of
from models.checkpoint import Checkpoint
from models.data import Label, Table
from models.encoded import Encoded
from models.encoding import encode
from models.generation_settings import Generation
from models.targets import NextTargets, Writes
from models.tasks import task_named
from teacher_student.sequence import written_by

SIZES = {"layers": 1, "hidden_size": 16, "heads": 2, "ffn": 24, "positions": 90, "vocab_size": 400, "beams": 1}
TRAIN = Table(["the cat sat", "the mat"], None, [("another cake",), ("for the cat",)], "rows", "train")
VALIDATION = Table(["the cat", "thousands of runners"], None, [("for",), ("the cat",)], "rows", "validation")

MakeContext = Callable[..., Context]


@pytest.fixture
def parent(tmp_path: Path) -> Checkpoint:
    """Return an untrained translator with a vocabulary of more texts than it is trained on, which writes no bytes."""
    labels: list[Label] = [(line.upper(),) for line in LINES]
    table = Table([*LINES] * 4, None, labels * 4, "rows", "all")
    made = new_network(ArchitectureSettings(**{**SIZES, "family": "marian"}), table, None, tmp_path)
    assert made.generation is not None
    how = replace(made.generation, max_tokens=6, no_repeat=1, banned=tuple(range(5, 261)))
    return Checkpoint.new(made.shape, made.reader, seed=0, generation=how)


@pytest.fixture
def make_context(parent: Checkpoint, tmp_path: Path) -> MakeContext:
    """Return what makes a context of the texts above, read by any tokenizer."""
    task = task_named("translation")

    def encoded(role: str, reader: Checkpoint) -> Encoded:
        table = {"train": TRAIN, "validation": VALIDATION}[role]
        how = {"max_length": 90, "cache": tmp_path / "cache", "generation": reader.generation}
        return encode(table, reader.tokenizing, task.targets(table, ()), **how)  # type: ignore[arg-type]

    examples = {role: encoded(role, parent) for role in ("train", "validation")}
    context = tiny_context(tmp_path, parent, **examples)
    return lambda **changes: replace(context, **{"task": task, "encoded": encoded, **changes})


def pieces(checkpoint: Checkpoint) -> dict[str, int]:
    found: dict[str, int] = checkpoint.tokenizing._tokenizer.get_vocab(with_added_tokens=True)
    return found


def test_sources_and_targets_choose(parent: Checkpoint, make_context: MakeContext) -> None:
    made = run(parent, TrimSettings(), make_context())
    before, after = parent.tokenizing, made.product.tokenizing
    assert {"\u0120cat", "\u0120cak", "\u0120for", "another"} & pieces(parent).keys() <= pieces(made.product).keys()
    for text in ("the cat sat", "another cake", "for the cat"):
        assert len(after.plain([text])[0]) == len(before.plain([text])[0])
    assert len(after.plain(["thousands of runners"])[0]) > len(before.plain(["thousands of runners"])[0])
    told = made.details
    assert told["pieces"]["after"] == made.product.shape.vocab_size < told["pieces"]["before"]
    # How much is written is not bound by the texts that were there.
    assert told["positions"] == {"before": 90, "after": 90}
    assert told["covered"] == 1.0
    assert (told["validation"]["texts"], told["validation"]["changed"]) == (2, 1)
    assert told["validation"]["tokens_per_text"]["after"] > told["validation"]["tokens_per_text"]["before"]
    assert run(parent, TrimSettings(positions=40), make_context()).product.shape.usable_positions == 40
    rare = run(parent, TrimSettings(min_count=2), make_context())
    assert "\u0120cat" in pieces(rare.product) and rare.details["pieces"]["after"] < told["pieces"]["after"]


def test_what_the_teacher_wrote_is_kept_where_it_was_learnt(
    parent: Checkpoint, make_context: MakeContext, tmp_path: Path
) -> None:
    names = {number: piece for piece, number in pieces(parent).items()}
    told = written_by(parent, make_context().train, cache=tmp_path / "cache")
    wrote = {names[token] for token in told.targets[:, 0].tolist()}
    alone, learnt = (run(parent, TrimSettings(), make_context(sequence=learns)) for learns in (False, True))
    assert not wrote <= pieces(alone.product).keys()
    assert wrote <= pieces(learnt.product).keys()
    assert pieces(alone.product).keys() < pieces(learnt.product).keys()


def test_every_token_of_running_text_counts(parent: Checkpoint, tmp_path: Path) -> None:
    table = Table(["the cat sat on the mat", "another cake"], None, None, "rows", "running")
    for end in ((), (2,)):
        data = encode(
            table,
            parent.tokenizing,
            NextTargets(),
            max_length=3,
            cache=tmp_path / "cache",
            generation=Generation(end=end),
        )
        whole = {token for text in parent.tokenizing.plain(table.texts) for token in text}
        assert set(np.unique(tokens_of(data, Writes.ON)).tolist()) == whole | set(end)
