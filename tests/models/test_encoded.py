from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from models import encoded, token_cache
from models.content import Tokens, members
from models.data import Table
from models.encoded import Encoded, equal_lengths, length_buckets
from models.errors import BadInput, Unsupported
from models.labels import class_targets
from models.token_cache import encode_table
from models.tokenizing import Tokenizing

NO_FILES = {"rows": 40, "truncated": 0, "pad_token_id": 0, "digest": "x", "files": {}}
WORDS = ["red", "green", "blue", "one", "two"]


def _tokenizing(pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1") -> Tokenizing:
    vocabulary = {token: number for number, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return Tokenizing(tokenizer.to_str(), {"pad_token": "[PAD]"})


def _table(rows: int = 40, *, paired: bool = False) -> Table:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, size=draw.integers(0, 9))) for _ in range(rows)]
    pairs = [" ".join(draw.choice(WORDS, size=draw.integers(0, 4))) for _ in range(rows)] if paired else None
    labels: list[Any] = [int(draw.integers(0, 2)) for _ in range(rows)]
    return Table(texts, pairs, labels, "here.csv", f"digest-{rows}-{paired}")


def _targets(table: Table) -> Any:
    return np.array(class_targets(table, ("no", "yes")))


def _encode(table: Table, cache: Path, **told: Any) -> Encoded:
    longest = told.pop("max_length", 6)
    return encode_table(table, _tokenizing(), _targets(table), max_length=longest, cache=cache, **told)


def _files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_rows_are_what_the_tokenizer_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paired: bool, chunk: int
) -> None:
    monkeypatch.setattr(token_cache, "_CHUNK", chunk)
    table = _table(paired=paired)
    data = _encode(table, tmp_path)
    expected = _tokenizing().encode(table.texts, table.pairs, max_length=6)
    assert len(data) == len(table)
    assert data.truncated == sum(one.truncated for one in expected) > 0
    assert data.targets.tolist() == table.labels
    for row, one in enumerate(expected):
        assert data.lengths[row] == len(one.ids)
        batch = data.batch(np.array([row]))
        assert batch.inputs["input_ids"].tolist() == [one.ids]
        assert batch.inputs["token_type_ids"].tolist() == [one.token_type_ids]
        assert batch.inputs["attention_mask"].tolist() == [[1] * len(one.ids)]
    assert bool((data.tokens.second >= 0).any()) is paired


def test_a_batch_is_padded_on_the_right_in_the_order_asked(tmp_path: Path) -> None:
    table = Table(["red", "one two red", ""], ["", "blue", "green"], ["yes", "no", "yes"], "here", "digest")
    batch = _encode(table, tmp_path, max_length=10).batch(np.array([2, 1, 0]))
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 5, 2, 3, 3, 3], [1, 7, 8, 4, 2, 6, 2], [1, 4, 2, 2, 3, 3, 3]]
    assert batch.inputs["token_type_ids"].tolist() == [
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 1, 0, 0, 0],
    ]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert batch.targets.tolist() == [1, 0, 1]
    assert batch.indices.tolist() == [2, 1, 0]
    assert {tensor.dtype for tensor in (*batch.inputs.values(), batch.targets, batch.indices)} == {torch.int64}


def test_arrays_are_mapped_not_loaded_and_batches_are_copies(tmp_path: Path) -> None:
    data = _encode(_table(), tmp_path)
    for array in (data.tokens.ids, data.offsets, data.tokens.second, data.targets):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    batch = data.batch(np.array([0, 1]))
    before = data.targets[:2].tolist()
    batch.targets.fill_(7)
    assert data.targets[:2].tolist() == before


def test_without_labels_every_target_is_minus_one(tmp_path: Path) -> None:
    table = _table()
    unlabelled = encode_table(table, _tokenizing(), None, max_length=6, cache=tmp_path)
    assert set(unlabelled.targets.tolist()) == {-1}
    assert set(_encode(replace(table, labels=None, digest="other"), tmp_path).targets.tolist()) == {-1}


def test_the_second_time_nothing_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = _table()
    first = _encode(table, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizing, "encode", lambda *told, **more: pytest.fail("encoded again"))
        again = _encode(table, tmp_path)
    assert again.tokens.ids.tolist() == first.tokens.ids.tolist()
    assert again.digest == first.digest
    assert (again.truncated, again.tokens.pad_token_id) == (first.truncated, 3)


def test_everything_that_matters_makes_another_entry(tmp_path: Path) -> None:
    table = _table()
    digests = {
        _encode(table, tmp_path).digest,
        _encode(table, tmp_path, max_length=7).digest,
        _encode(replace(table, digest="other"), tmp_path).digest,
        encode_table(table, _tokenizing(), 1 - _targets(table), max_length=6, cache=tmp_path).digest,
        encode_table(table, _tokenizing(), None, max_length=6, cache=tmp_path).digest,
        encode_table(table, replace(_tokenizing(), config={}), _targets(table), max_length=6, cache=tmp_path).digest,
    }
    assert len(digests) == len(list(tmp_path.iterdir())) == 6


def test_a_broken_entry_is_made_anew(tmp_path: Path) -> None:
    table = _table()
    whole = _encode(table, tmp_path)
    expected: tuple[Any, ...] = (np.array(whole.tokens.ids), np.array(whole.offsets), np.array(whole.targets))
    del whole
    names = [path.name for path in _files(tmp_path)]
    assert names == sorted(["meta.json", *(f"{name}.npy" for name in token_cache._ARRAYS)])
    for name in names:
        for harm in ("flip", "cut", "remove", "empty"):
            path = next(file for file in _files(tmp_path) if file.name == name)
            content = path.read_bytes()
            if harm == "remove":
                path.unlink()
            elif harm == "flip":
                path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
            else:
                path.write_bytes(content[: len(content) // 2 if harm == "cut" else 0])
            again = _encode(table, tmp_path)
            arrays: tuple[Any, ...] = (again.tokens.ids, again.offsets, again.targets)
            for array, wanted in zip(arrays, expected, strict=True):
                assert np.array_equal(array, wanted), (name, harm)
            assert path.read_bytes() == content


@pytest.mark.parametrize(
    "meta", [[], {}, {"files": 3}, {"files": {"ids.npy": ["x"]}}, {"files": {}, "rows": 1}, NO_FILES]
)
def test_an_entry_with_a_strange_record_is_made_anew(tmp_path: Path, meta: Any) -> None:
    table = _table()
    _encode(table, tmp_path)
    path = next(file for file in _files(tmp_path) if file.name == "meta.json")
    content = path.read_text()
    path.write_text(json.dumps(meta))
    assert len(_encode(table, tmp_path)) == len(table)
    assert path.read_text() == content


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _encode(_table(), tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert len(_encode(_table(), tmp_path)) == 40


def test_progress_ends_at_the_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_CHUNK", 16)
    seen: list[tuple[int, int]] = []
    _encode(_table(), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 40), (32, 40), (40, 40)]


def test_an_unknown_label_is_said_before_anything_is_written(tmp_path: Path) -> None:
    labels: list[Any] = ["yes"] * 39 + ["maybe"]
    table = replace(_table(), labels=labels)
    with pytest.raises(BadInput, match=r"here\.csv: row 40 has the label 'maybe'.*Known labels: no, yes"):
        _encode(table, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_token_types_in_another_order_are_refused(tmp_path: Path) -> None:
    table = _table(paired=True)
    for number, pair in enumerate(["[CLS]:1 $A [SEP] $B:1 [SEP]:1", "[CLS] $A:2 [SEP] $B [SEP]"]):
        with pytest.raises(Unsupported, match="token types"):
            encode_table(table, _tokenizing(pair), None, max_length=9, cache=tmp_path / str(number))


lengths_of_rows = st.lists(st.integers(1, 8), min_size=0, max_size=200).map(lambda values: np.array(values, np.int64))


@settings(max_examples=50, deadline=None)
@given(lengths_of_rows, st.integers(1, 8), st.one_of(st.none(), st.integers(0, 9)))
def test_buckets_hold_every_row_once(lengths: Any, batch_size: int, seed: int | None) -> None:
    batches = length_buckets(lengths, batch_size=batch_size, seed=seed)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    again = length_buckets(lengths, batch_size=batch_size, seed=seed)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


@settings(max_examples=50, deadline=None)
@given(lengths_of_rows, st.integers(1, 8))
def test_equal_lengths_never_need_padding(lengths: Any, batch_size: int) -> None:
    batches = equal_lengths(lengths, batch_size=batch_size)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(set(lengths[batch].tolist())) == 1
    starts = [int(lengths[batch[0]]) for batch in batches]
    assert starts == sorted(starts)


def test_buckets_are_random_between_seeds_and_similar_within() -> None:
    lengths = np.random.default_rng(0).integers(2, 100, size=10_000)
    one = length_buckets(lengths, batch_size=32, seed=1)
    two = length_buckets(lengths, batch_size=32, seed=2)
    assert one[0].tolist() != two[0].tolist()
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in one)
    assert padded < 1.1 * lengths.sum()
    firsts = [int(lengths[batch].mean()) for batch in one]
    assert firsts != sorted(firsts)


@given(lengths_of_rows, st.randoms(use_true_random=False))
def test_members_are_the_places_of_rows_one_after_another(lengths: Any, draw: Any) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.array([draw.randrange(len(lengths)) for _ in lengths], dtype=np.int64)
    expected = [place for row in rows for place in range(offsets[row], offsets[row + 1])]
    assert members(offsets, rows).tolist() == expected


def test_no_rows_have_no_labels() -> None:
    for targets in (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), np.zeros((0, 3), dtype=np.float32)):
        empty = Encoded(Tokens(np.zeros(0, np.int32), np.zeros(0, np.int32)), np.zeros(1, np.int64), targets, 0, "0")
        assert len(empty) == 0
        assert empty.labelled.tolist() == []


def test_a_sample_is_of_few_rows_and_of_few_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encode(_table(), tmp_path)
    whole, again, other = (data.sample(seed=seed) for seed in (0, 0, 1))
    assert sorted(whole.indices.tolist()) == list(range(40))
    assert torch.equal(whole.indices, again.indices) and not torch.equal(whole.indices, other.indices)
    monkeypatch.setattr(encoded, "SAMPLED_TOKENS", 60)
    few = data.sample(seed=0)
    assert len(few.indices) >= 2 and few.mask.numel() <= 60
    monkeypatch.setattr(encoded, "SAMPLED_ROWS", 3)
    monkeypatch.setattr(encoded, "SAMPLED_TOKENS", 1)
    assert len(data.sample(seed=0).indices) == 1
