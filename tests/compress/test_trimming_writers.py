"""What writes is trimmed: the words that are left have the logits that they had, and the same texts are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.vocabularies import tokenizing_of
from support.writers import writer
from support.writing_tokenizers import LINES, TOKENIZERS
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from compress.trimming.checkpoint import trim_checkpoint
from compress.trimming.tokenizer import Trimmed
from export.contents import Contents, write_bundle
from export.generator import Generator
from export.graph_file import graph_file
from export.target import CPU
from models.checkpoint import Checkpoint
from models.errors import BadFile, Unsupported
from models.generation import generate, starts
from models.generation_settings import Generation
from models.native_steps import NativeSteps
from models.tokenizing import Tokenizing

TEXTS = [LINES[0], "the dog", "drei kleine Hunde und another cat"]
LONGEST, NEW = 60, 8
TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
BEHIND = {**TOKENS, "decoder_start_token_id": 2, "forced_eos_token_id": None}
PLACES = {"max_position_embeddings": LONGEST}
# The caches of transformers have as many layers as the encoder.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("t5", "unigram", {**BEHIND, "num_layers": 3, "n_positions": LONGEST, "decoder_start_token_id": 1}),
    "bart": ("bart", "byte-level", {**BEHIND, **PLACES, "encoder_layers": 3}),
    "mbart": ("mbart", "unigram", {**BEHIND, **PLACES, "encoder_layers": 3}),
    "marian": ("marian", "unigram", {**BEHIND, **PLACES, "encoder_layers": 3}),
    "marian of two tables": (
        "marian",
        "byte-level",
        {**BEHIND, **PLACES, "encoder_layers": 3, "share_encoder_decoder_embeddings": False},
    ),
    "gpt2": ("gpt2", "byte-level, bare", {**TOKENS, "n_positions": LONGEST}),
    "llama": ("llama", "merges with bytes", {**TOKENS, **PLACES}),
    "qwen2 tied": ("qwen2", "whole words first", {**TOKENS, **PLACES, "tie_word_embeddings": True}),
}
PADDED = 3  # rows behind the last piece, as T5's table has them


class Pair(NamedTuple):
    """A model of `transformers`, what was read of it, and what that is without the pieces it does without."""

    theirs: Any
    before: Checkpoint
    after: Checkpoint
    told: Trimmed
    sources: list[list[int]]
    written: list[list[int]]


def read(tokenizing: Tokenizing, texts: list[str] = TEXTS) -> list[list[int]]:
    return [one.ids for one in tokenizing.encode(texts, max_length=LONGEST)]


def written_by(model: Any, source: list[int]) -> list[int]:
    """Return what `transformers` writes for a source, likeliest word by word; no pair of them twice, as drawn weights
    else write one alone.
    """
    config = GenerationConfig(
        max_new_tokens=NEW,
        no_repeat_ngram_size=2,
        do_sample=False,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        **TOKENS,
    )
    ids = torch.tensor([source])
    with torch.no_grad():
        said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)[0].tolist()
    said = said[1:] if model.config.is_encoder_decoder else said[len(source) :]
    return said[: said.index(2)] if 2 in said else said


def made(name: str, folder: Path) -> Pair:
    family, kind, changes = CASES[name]
    tokenizing = TOKENIZERS[kind]()
    size = tokenizing.vocab_size + PADDED
    if changes.get("share_encoder_decoder_embeddings") is False:
        changes = {**changes, "decoder_vocab_size": size}
    model = writer(family, deviation=0.5, vocab_size=size, **changes)
    model.generation_config = GenerationConfig.from_model_config(model.config)
    with torch.no_grad():  # so that what has no piece is not written
        for table in (model.get_output_embeddings().weight.T, getattr(model, "final_logits_bias", torch.zeros(1, 1))):
            table[:, -PADDED:] = 0.0
    model.save_pretrained(folder)
    tokenizing.save(folder)
    before = Checkpoint.load(folder)
    assert before.generation is not None
    before = replace(before, generation=replace(before.generation, max_tokens=NEW, no_repeat=2))
    sources = read(tokenizing)
    written = [written_by(model, source) for source in sources]
    seen = {token for text in (*sources, *written) for token in text if token <= tokenizing.highest_id}
    after, told = trim_checkpoint(before, seen, positions=before.shape.usable_positions, fold_token_types=True)
    return Pair(model, before, after, told, sources, written)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    return {name: made(name, tmp_path_factory.mktemp("teacher")) for name in CASES}


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


def batch_of(pair: Pair, *, trimmed: bool) -> dict[str, torch.Tensor]:
    numbers = pair.told.numbers if trimmed else {token: token for token in range(pair.before.shape.vocab_size)}
    source, said = ([[numbers[token] for token in text] for text in texts] for texts in (pair.sources, pair.written))
    if pair.before.shape.decoder is None:
        return {"input_ids": torch.tensor([[*source[0], *said[0]]])}
    checkpoint = pair.after if trimmed else pair.before
    assert checkpoint.generation is not None and checkpoint.generation.start is not None
    begun = [checkpoint.generation.start, *said[0]]
    return {"input_ids": torch.tensor([source[0]]), "decoder_input_ids": torch.tensor([begun])}


def test_logits_of_kept_words_are_those_of_transformers(pair: Pair) -> None:
    assert len(pair.told.rows) < pair.before.tokenizing.vocab_size
    with torch.no_grad():
        wanted = pair.theirs(**batch_of(pair, trimmed=False)).logits[..., list(pair.told.rows)]
        found = pair.after.network()(**batch_of(pair, trimmed=True))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_same_words_are_written(pair: Pair) -> None:
    after, settings = pair.after, pair.after.generation
    assert settings is not None
    assert len({token for text in pair.written for token in text}) > 2
    for text, source, said in zip(TEXTS, pair.sources, pair.written, strict=True):
        (ids,) = read(after.tokenizing, [text])
        assert ids == [pair.told.numbers[token] for token in source]
        behind = after.shape.decoder is not None
        steps = NativeSteps(after.network(), [ids] if behind else None)
        ((best,),) = generate(steps, starts(settings, 1) if behind else [ids], settings)
        assert list(best.tokens) == [pair.told.numbers[token] for token in said]


def test_a_bundle_writes_the_same_texts(pair: Pair, tmp_path: Path) -> None:
    for name, checkpoint in (("before", pair.before), ("after", pair.after)):
        (tmp_path / name).mkdir()
        write_bundle(tmp_path / name, Contents.of(checkpoint, graph_file(checkpoint.network(), CPU), []))
    found = Generator.open(tmp_path / "after").write(TEXTS)
    assert found == Generator.open(tmp_path / "before").write(TEXTS)
    if pair.before.shape.decoder is not None:
        assert found == pair.before.tokenizing.decoded(pair.written)


def test_it_is_written_back_for_transformers(pair: Pair, tmp_path: Path) -> None:
    pair.after.save_hugging_face(tmp_path)
    kind = AutoModelForCausalLM if pair.after.shape.decoder is None else AutoModelForSeq2SeqLM
    again = kind.from_pretrained(tmp_path).eval()
    batch = batch_of(pair, trimmed=True)
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, pair.after.network()(**batch), rtol=1e-4, atol=1e-4)
    numbers, settings = pair.told.numbers, again.generation_config
    assert (settings.eos_token_id, settings.pad_token_id) == (numbers[2], numbers[1])
    assert Checkpoint.load(tmp_path).generation == pair.after.generation


def test_all_tokens_that_settings_name_are_numbered_anew(tmp_path: Path) -> None:
    model = writer("bart", vocab_size=360, **BEHIND, **PLACES)
    model.save_pretrained(tmp_path)
    TOKENIZERS["byte-level"]().save(tmp_path)
    named = Generation(
        start=300, end=(2, 301), bos=359, forced_first=310, forced_last=301, banned=(4, 320), max_tokens=NEW
    )
    before = replace(Checkpoint.load(tmp_path), generation=named)
    after, told = trim_checkpoint(before, (), positions=20, fold_token_types=True)
    settings, numbers = after.generation, told.numbers
    assert settings is not None
    assert 320 not in numbers  # what is never written need not stay
    assert settings.tokens == tuple(numbers[token] for token in (300, 2, 301, 359, 310, 301, 4))
    assert (settings.start, settings.end) == (numbers[300], (numbers[2], numbers[301]))
    assert after.shape.pad_token_id == numbers[1]
    assert max(settings.tokens) < after.shape.written_words < 300
    for table in ("embeddings.position.weight", "decoder.embeddings.position.weight"):
        assert len(after.weights[table]) == 20 + before.shape.position_offset
    assert after.weights["output.bias"].shape == (after.shape.written_words,)


def test_a_character_that_becomes_a_piece_is_never_written(tmp_path: Path) -> None:
    # x and y stand within pieces alone, so that each becomes one, as likely as what is unknown.
    tokenizing = tokenizing_of("Unigram", {"a": -1.0, "b": -1.0, "xy": -2.0, "ab": -1.5})
    model = writer("t5", vocab_size=tokenizing.vocab_size, **{**BEHIND, "eos_token_id": 3, "pad_token_id": 0})
    model.save_pretrained(tmp_path)
    tokenizing.save(tmp_path)
    after, told = trim_checkpoint(
        Checkpoint.load(tmp_path), tokenizing.plain(["a b"])[0], positions=30, fold_token_types=True
    )
    assert len(told.forms) == 2 and after.generation is not None
    assert after.generation.banned == told.forms
    assert after.tokenizing.plain(["xa"])[0] == [told.forms[0], *after.tokenizing.plain(["a"])[0]]
    torch.testing.assert_close(
        after.weights["embeddings.word.weight"][list(told.forms)],
        torch.stack([after.weights["embeddings.word.weight"][told.numbers[1]]] * 2),
    )


def test_what_cannot_be_trimmed_is_refused(tmp_path: Path) -> None:
    tokenizing = TOKENIZERS["byte-level"]()
    writer(
        "marian", vocab_size=360, share_encoder_decoder_embeddings=False, decoder_vocab_size=400, **BEHIND
    ).save_pretrained(tmp_path)
    tokenizing.save(tmp_path)
    with pytest.raises(Unsupported, match="400 words of a decoder that reads 360"):
        trim_checkpoint(Checkpoint.load(tmp_path), (), positions=9, fold_token_types=True)
    writer("bart", vocab_size=400, **BEHIND, **PLACES).save_pretrained(tmp_path)
    before = Checkpoint.load(tmp_path)
    for wrong in (Generation(start=390, end=(2,)), Generation(start=2, end=(399,))):
        with pytest.raises(BadFile, match="which the tokenizer does not have"):
            trim_checkpoint(replace(before, generation=wrong), (), positions=9, fold_token_types=True)
