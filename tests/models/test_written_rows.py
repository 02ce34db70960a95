"""What is read and written as arrays, and what a network that writes is judged by; `transformers` is the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sacrebleu
import torch
from support.examples import tiny_tokenizing
from support.writers import writer
from torch import Tensor

from models.blocks import blocks_in
from models.checkpoint import Checkpoint
from models.data import Table
from models.encoded import Encoded, joined, length_buckets
from models.encoding import encode
from models.errors import BadInput
from models.evaluation import BEHIND, outputs_of, token_costs, written_tokens
from models.generation_settings import Generation
from models.new_tokenizer import BARE, ENDED, train_byte_level_bpe
from models.summary import Summary, contributions, summarised
from models.targets import NextTargets, Writes
from models.tasks import task_named
from models.tokenizing import Tokenizing
from models.writing import require_writer

SOURCES = ["w3 w4", "w5", "w6 w7 w8 w9", "w5 w5"]
EXPECTED = ["w9 w8", "w7 w6 w5", "w4", "w3 w3 w3 w3"]
TABLE = Table(SOURCES, None, [(text, "w2") for text in EXPECTED], "rows", "digest")
WRITES = Generation(start=1, end=(2,), max_tokens=6)


def rows(folder: Path, *, generation: Generation | None = WRITES, max_length: int = 9, table: Table = TABLE) -> Encoded:
    targets = task_named("translation").targets(table, ())
    return encode(table, tiny_tokenizing(), targets, max_length=max_length, cache=folder, generation=generation)


def test_what_is_written_stands_behind_its_start_and_before_its_end(tmp_path: Path) -> None:
    for data in (rows(tmp_path), rows(tmp_path)):  # made, and found again
        batch = data.batch(np.array([0, 2]))
        assert batch.inputs["input_ids"].tolist() == [[3, 4, 0, 0], [6, 7, 8, 9]]
        assert batch.inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
        assert batch.inputs["decoder_input_ids"].tolist() == [[1, 9, 8], [1, 4, 0]]
        assert batch.targets[..., 0].tolist() == [[9, 8, 2], [4, 2, -1]]
        assert batch.mask.tolist() == [[True, True, True], [True, True, False]]
        assert data.labelled.all() and data.lengths.tolist() == [3, 4, 2, 5]
    few = data.drawn(2, seed=1)
    both = joined([few, data])
    assert both.batch(np.arange(6)).inputs["input_ids"].shape == (6, 4)
    torch.testing.assert_close(both.batch(np.array([3])).targets, data.batch(np.array([1])).targets)
    torch.testing.assert_close(
        both.batch(np.array([3])).inputs["input_ids"], data.batch(np.array([1])).inputs["input_ids"]
    )


def test_both_sides_are_cut_and_the_end_is_kept(tmp_path: Path) -> None:
    data = rows(tmp_path, max_length=3)
    assert data.truncated == 1 + 2  # a source of four words, texts of three and four and what ends them
    assert data.batch(np.array([3])).targets[0, :, 0].tolist() == [3, 3, 2]
    assert data.batch(np.array([2])).inputs["input_ids"].tolist() == [[6, 7, 8]]


def test_without_a_start_nothing_is_written(tmp_path: Path) -> None:
    for generation in (None, Generation(end=(2,))):
        with pytest.raises(BadInput, match="which token a text starts with"):
            rows(tmp_path, generation=generation)
    unknown = rows(tmp_path, table=replace(TABLE, labels=None))
    assert not unknown.labelled.any() and unknown.lengths.tolist() == [1] * 4
    with pytest.raises(BadInput, match="row 2 has 7, which is no text"):
        rows(tmp_path, table=replace(TABLE, labels=["a", 7, "b", "c"]))


def test_rows_of_both_lengths_alike_stand_together(tmp_path: Path) -> None:
    table = Table(["w3"] * 6 + ["w3 w3"] * 6, None, [("w4",), ("w4 w4",)] * 6, "rows", "more")
    data = rows(tmp_path, table=table)
    for batch in length_buckets(data.likeness, batch_size=3, seed=0):
        assert len({(len(table.texts[row]), table.labels[row]) for row in batch}) == 1  # type: ignore[index]


def test_running_text_is_cut_into_blocks_that_expect_every_token(tmp_path: Path) -> None:
    table = Table(["w3 w4 w5 w6 w7", "w8"], None, None, "rows", "running")
    task = task_named("text-generation")
    data = encode(
        table, tiny_tokenizing(), task.targets(table, ()), max_length=2, cache=tmp_path, generation=Generation(end=(2,))
    )
    batch = data.batch(np.arange(len(data)))
    assert batch.inputs["input_ids"].tolist() == [[3, 4], [5, 6], [7, 0], [8, 0]]
    assert batch.targets[..., 0].tolist() == [[4, 5], [6, 7], [2, -1], [2, -1]]
    assert data.examples.tolist() == [0, 1, 2, 3]


def test_running_text_keeps_its_blocks_where_it_is_cut_into_other_tokens(tmp_path: Path) -> None:
    corpus = ["the cat sat beside the dog and the dog sat beside the cat", "naïve cafés beside the café"]
    coarse, fine = (train_byte_level_bpe(corpus * 3, vocab_size=size, max_length=90, form=BARE) for size in (330, 280))
    table = Table([corpus[0], "日本 \N{ROBOT FACE} dog", "a"], None, None, "rows", "running")

    def read(tokenizing: Tokenizing, targets: NextTargets, longest: int) -> Encoded:
        end = Generation(end=(2,))
        return encode(table, tokenizing, targets, max_length=longest, cache=tmp_path, generation=end)

    def blocks(data: Encoded) -> list[npt.NDArray[np.int64]]:
        of_token = np.repeat(data.examples, data.lengths)
        return [data.targets[of_token == block] for block in range(len(before))]

    before, after = read(coarse, NextTargets(), 6), read(fine, NextTargets(coarse, 6), 5)
    assert before.examples.tolist() == list(range(len(before)))
    assert int(after.offsets[-1]) > int(before.offsets[-1]) and int(after.lengths.max()) == 5
    assert [int(block[:, 2].sum()) for block in blocks(after)] == before.lengths.tolist()
    assert all(len(block) for block in blocks(after))
    first = blocks_in(len(coarse.plain(table.texts[:1])[0]) + 1, 6)
    texts = [
        [tokenizing.decoded([block[:, 0].tolist()])[0] for block in blocks(data)[:first]]
        for tokenizing, data in ((coarse, before), (fine, after))
    ]
    # Seen from the end, where what a token stands behind is the same.
    lengths = np.array([[len(text) for text in reversed(some)] for some in texts]).cumsum(axis=1)
    assert first > 2 and "".join(texts[1]).endswith("".join(texts[0]))
    assert np.abs(lengths[0] - lengths[1])[:-1].max() <= len("beside ")
    same = read(coarse, NextTargets(coarse, 6), 6)
    np.testing.assert_array_equal(same.targets, before.targets)


def ours_of(model: torch.nn.Module, folder: Path) -> Checkpoint:
    model.save_pretrained(folder)
    tiny_tokenizing().save(folder)
    return Checkpoint.load(folder)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_transformers(smoothing: float, tmp_path: Path) -> None:
    model = writer("marian").eval()
    checkpoint = ours_of(model, tmp_path / "model")
    data = rows(tmp_path, generation=replace(WRITES, start=checkpoint.generation.start))  # type: ignore[union-attr]
    batch = data.batch(np.arange(4))
    labels = batch.targets[..., 0].masked_fill(~batch.mask, -100)
    with torch.no_grad():
        theirs = model(**{name: batch.inputs[name] for name in ("input_ids", "attention_mask")}, labels=labels)
        logits = checkpoint.network()(**batch.inputs)[batch.mask]
    wanted = theirs.loss
    if smoothing:  # their LabelSmoother
        uniform = -theirs.logits.log_softmax(dim=-1).mean(dim=-1)[batch.mask].mean()
        wanted = (1 - smoothing) * wanted + smoothing * uniform
    found: Tensor = task_named("translation").loss(logits, batch.targets[batch.mask], smoothing=smoothing)
    torch.testing.assert_close(found / int(batch.mask.sum()), wanted)


def test_what_tokens_cost_is_the_loss_of_transformers(tmp_path: Path) -> None:
    model = writer("gpt2").eval()
    checkpoint = ours_of(model, tmp_path / "model")
    table = Table(["w3 w4 w5 w6 w7 w8 w9", "w8 w2 w4"], None, None, "rows", "running")
    task = task_named("text-generation")
    data = encode(table, tiny_tokenizing(), task.targets(table, ()), max_length=9, cache=tmp_path)
    costs = token_costs(checkpoint.network(), data)
    texts = [[3, 4, 5, 6, 7, 8, 9], [8, 2, 4]]
    with torch.no_grad():
        wanted = [float(model(torch.tensor([ids]), labels=torch.tensor([ids])).loss) * (len(ids) - 1) for ids in texts]
    statistics = task.statistics(costs, data, ())
    np.testing.assert_allclose(statistics, [[wanted[0], 6], [wanted[1], 2]], rtol=1e-5)
    once = np.ones((1, 2))
    assert summarised(Summary.PERPLEXITY, statistics, once)[0] == pytest.approx(np.exp(sum(wanted) / 8), rel=1e-5)
    with pytest.raises(BadInput, match="reads a source"):
        require_writer(checkpoint.shape, Writes.BEHIND_SOURCE, asked="translation", where="model")
    require_writer(checkpoint.shape, Writes.ON, asked="text-generation", where="model")


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_is_what_transformers_writes(beams: int, tmp_path: Path) -> None:
    model = writer("marian").eval()
    checkpoint = ours_of(model, tmp_path / "model")
    assert checkpoint.generation is not None
    generation = replace(checkpoint.generation, max_tokens=5, beams=beams)
    data = rows(tmp_path, generation=generation)
    network = checkpoint.network()
    found = outputs_of(network, data, Writes.BEHIND_SOURCE, generation=generation)
    assert found.dtype == np.int32
    for line, source in zip(found, ([3, 4], [5], [6, 7, 8, 9], [5, 5]), strict=True):
        (theirs,) = model.generate(torch.tensor([source]), max_new_tokens=5, num_beams=beams, do_sample=False)
        ids = [token for token in theirs[1:].tolist() if token not in generation.end]
        assert line[line != BEHIND].tolist() == ids
    np.testing.assert_array_equal(found, written_tokens(network, data, generation))
    with pytest.raises(BadInput, match="how the model writes"):
        outputs_of(network, data, Writes.BEHIND_SOURCE, generation=None)


def test_texts_are_judged_by_bleu_chrf_and_rouge(tmp_path: Path) -> None:
    texts = ["ein Hund läuft durch den Schnee", "zwei Männer sitzen auf einer Bank im Park"]
    expected = [("Ein Hund läuft durch den tiefen Schnee.",), ("Zwei Männer sitzen auf einer Bank.", "Männer im Park.")]
    tokenizing = train_byte_level_bpe(
        [*texts, *(one for row in expected for one in row)], vocab_size=300, max_length=90, form=ENDED
    )
    table = Table(["a", "b"], None, list(expected), "rows", "two")
    for name in ("translation", "summarization"):
        task = task_named(name)
        generation = Generation(start=1, end=(2,))
        data = encode(table, tokenizing, task.targets(table, ()), max_length=90, cache=tmp_path, generation=generation)
        written = [[*tokenizing.plain([text])[0]] for text in texts]
        outputs = np.full((2, max(map(len, written))), BEHIND, dtype=np.int32)
        for line, ids in zip(outputs, written, strict=True):
            line[: len(ids)] = ids
        statistics = task.statistics(outputs, data, ())
        score = contributions(task.metric.summary, statistics).mean()
        if name == "translation":
            streams = [[row[0] for row in expected], [row[-1] for row in expected]]
            assert score == pytest.approx(sacrebleu.corpus_bleu(texts, streams).score / 100)
        else:
            assert score == pytest.approx((14 / 15 + 14 / 16) / 2)  # umlauts part words, as in rouge-score
