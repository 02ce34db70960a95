from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece
from transformers import AutoTokenizer

from models.errors import BadFile, BadInput
from models.new_tokenizer import SPECIAL_TOKENS, train_byte_level_bpe
from models.tokenizing import Tokenizing

TEACHER = Path(__file__).parents[2].parent / "shared" / "teachers" / "minilm-sst2"

TEXTS = [
    "it 's a charming and often affecting journey . ",
    "unflinchingly bleak and desperate",
    "",
    "   ",
    "Café, naïve, Ångström, São Paulo – déjà vu!",
    "東京は日本の首都です。中文也可以",
    "emoji 👩‍👩‍👧‍👦 🇩🇪 and 🤖🤖",
    "Ünïcödé e\u0301 combining, zero\u200bwidth, tab\tnewline\nnull\x00bell\x07",
    "المترجم العربي हिन्दी ไทย",
    "[CLS] [MASK] <s> <mask> [SEP] </s>",
    "supercalifragilisticexpialidocious" * 12,
    "a " * 400,
    "don't $5.00 100% e-mail@example.org https://example.org/?q=1&r=2",
    "ﬁ ligature, full width ＡＢＣ, ²³",
]


def _word_piece(directory: Path, *, lowercase: bool, tokenizer_class: str) -> Tokenizing:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As many published files are: with the lengths of somebody's last call baked in.
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=32, pad_id=0, pad_token="[PAD]")
    config = {
        "tokenizer_class": tokenizer_class,
        "do_lower_case": lowercase,
        "model_max_length": 512,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    Tokenizing(tokenizer.to_str(), config).save(directory)
    return Tokenizing.load(directory)


def _byte_bpe(directory: Path) -> Tokenizing:
    trained = train_byte_level_bpe(TEXTS * 3, vocab_size=500, max_length=128)
    Tokenizing(trained.json, {**trained.config, "tokenizer_class": "RobertaTokenizer"}).save(directory)
    return Tokenizing.load(directory)


def _agrees(tokenizing: Tokenizing, directory: Path, max_length: int) -> None:
    """Assert ids, token types and truncation equal to those of `transformers`, one text and two."""
    oracle: Any = AutoTokenizer.from_pretrained(str(directory))
    pairs = TEXTS[::-1]
    for seconds in (None, pairs):
        ours = tokenizing.encode(TEXTS, seconds, max_length=max_length)
        whole = tokenizing.encode(TEXTS, seconds, max_length=100_000)
        # A batch: called with one text, transformers takes an empty second text for none.
        theirs = oracle(
            TEXTS,
            seconds,
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True,
            verbose=False,
        )
        for row, encoding in enumerate(ours):
            assert encoding.ids == theirs["input_ids"][row], (TEXTS[row], seconds)
            assert encoding.token_type_ids == theirs["token_type_ids"][row], (TEXTS[row], seconds)
            assert encoding.truncated == (len(whole[row].ids) > max_length), (TEXTS[row], seconds)
            assert len(encoding.ids) <= max_length


@pytest.mark.parametrize("max_length", [7, 32, 512])
@pytest.mark.parametrize(
    ("lowercase", "tokenizer_class"), [(True, "BertTokenizer"), (False, "BertTokenizer"), (True, "DistilBertTokenizer")]
)
def test_word_piece_equals_transformers(tmp_path: Path, lowercase: bool, tokenizer_class: str, max_length: int) -> None:
    tokenizing = _word_piece(tmp_path, lowercase=lowercase, tokenizer_class=tokenizer_class)
    _agrees(tokenizing, tmp_path, max_length)


@pytest.mark.parametrize(
    "told",
    [
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
    ],
)
def test_a_configuration_that_differs_is_followed_as_in_transformers(tmp_path: Path, told: dict[str, bool]) -> None:
    same = _word_piece(tmp_path, lowercase=True, tokenizer_class="BertTokenizer")
    Tokenizing(same.json, {**same.config, **told}).save(tmp_path)
    differing = Tokenizing.load(tmp_path)
    _agrees(differing, tmp_path, 64)
    assert differing.encode(TEXTS, max_length=64) != same.encode(TEXTS, max_length=64)
    # What is written back says the same in both files.
    differing.save(tmp_path / "again")
    assert Tokenizing.load(tmp_path / "again") == differing


@pytest.mark.parametrize("max_length", [7, 32, 512])
def test_byte_level_bpe_equals_transformers(tmp_path: Path, max_length: int) -> None:
    _agrees(_byte_bpe(tmp_path), tmp_path, max_length)


def test_our_trained_tokenizer_loads_as_it_is_written(tmp_path: Path) -> None:
    tokenizing = train_byte_level_bpe(TEXTS, vocab_size=400, max_length=64)
    tokenizing.save(tmp_path)
    _agrees(tokenizing, tmp_path, 64)


@pytest.mark.real
@pytest.mark.skipif(not TEACHER.is_dir(), reason="no trained teacher beside the checkout")
@pytest.mark.parametrize("max_length", [16, 128])
def test_the_teachers_tokenizer_equals_transformers(max_length: int) -> None:
    _agrees(Tokenizing.load(TEACHER), TEACHER, max_length)


def test_roberta_form_and_token_numbers() -> None:
    tokenizing = train_byte_level_bpe(["low lower lowest"] * 5, vocab_size=300, max_length=64)
    vocabulary = json.loads(tokenizing.json)["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizing.pad_token_id == 1
    assert tokenizing.encode([""], max_length=8)[0].ids == [0, 2]
    single = tokenizing.encode(["low"], max_length=8)[0]
    pair = tokenizing.encode(["low"], ["low"], max_length=16)[0]
    assert pair.ids == [*single.ids, 2, *single.ids[1:]]
    assert set(pair.token_type_ids) == {0}


def test_byte_level_bpe_writes_every_text_back() -> None:
    tokenizing = train_byte_level_bpe(["plain English only"], vocab_size=261, max_length=64)
    runtime = Tokenizer.from_str(tokenizing.json)
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(
            chr(draw.choice([draw.randrange(32, 127), draw.randrange(0xA0, 0xD7FF), 0x1F600])) for _ in range(9)
        )
        assert runtime.decode(tokenizing.encode([text], max_length=64)[0].ids) == text
        assert 3 not in tokenizing.encode([text], max_length=64)[0].ids


def test_the_same_texts_train_the_same_tokenizer() -> None:
    texts = [f"{word} {word}s {number}" for number, word in enumerate(["alpha", "beta", "gamma", "delta"] * 50)]
    first = train_byte_level_bpe(iter(texts), vocab_size=350, max_length=64)
    second = train_byte_level_bpe(iter(texts), vocab_size=350, max_length=64)
    assert first == second
    assert first.digest == second.digest
    assert first.vocab_size <= 350
    assert first.highest_id == first.vocab_size - 1


def test_highest_id_sees_tokens_added_with_a_gap() -> None:
    text = json.loads(train_byte_level_bpe(TEXTS, vocab_size=300, max_length=64).json)
    text["model"]["vocab"]["far"] = 9_000
    assert Tokenizing(json.dumps(text), {}).highest_id == 9_000


def test_a_length_set_once_does_not_stay(tmp_path: Path) -> None:
    tokenizing = _word_piece(tmp_path, lowercase=True, tokenizer_class="BertTokenizer")
    long = "a " * 100
    assert [len(tokenizing.encode([long], max_length=size)[0].ids) for size in (5, 50, 5, 200)] == [5, 50, 5, 102]
    assert tokenizing.encode([long], max_length=102)[0].truncated is False
    assert tokenizing.encode([long], max_length=101)[0].truncated is True


def test_truncation_side_is_followed(tmp_path: Path) -> None:
    right = _word_piece(tmp_path, lowercase=True, tokenizer_class="BertTokenizer")
    left = Tokenizing(right.json, {**right.config, "truncation_side": "left"})
    whole = right.encode([TEXTS[0]], max_length=512)[0].ids
    assert right.encode([TEXTS[0]], max_length=6)[0].ids == [*whole[:5], whole[-1]]
    assert left.encode([TEXTS[0]], max_length=6)[0].ids == [whole[0], *whole[-5:]]


def test_more_texts_than_one_chunk_keep_their_order(tmp_path: Path) -> None:
    tokenizing = _byte_bpe(tmp_path)
    texts = [f"text {number}" for number in range(2_500)]
    pairs = [f"pair {number}" for number in range(2_500)]
    together = tokenizing.encode(texts, pairs, max_length=64)
    for number in (0, 1023, 1024, 2_047, 2_048, 2_499):
        assert together[number] == tokenizing.encode([texts[number]], [pairs[number]], max_length=64)[0]


def test_save_and_load_keep_every_byte(tmp_path: Path) -> None:
    tokenizing = _word_piece(tmp_path / "a", lowercase=True, tokenizer_class="BertTokenizer")
    tokenizing.save(tmp_path / "b")
    again = Tokenizing.load(tmp_path / "b")
    assert again == tokenizing
    assert again.digest == tokenizing.digest
    assert Tokenizing(tokenizing.json + " ", tokenizing.config).digest != tokenizing.digest
    (tmp_path / "b" / "tokenizer_config.json").unlink()
    without = Tokenizing.load(tmp_path / "b")
    assert without.config == {}
    assert without.pad_token_id == 0


def test_pad_token_of_old_configurations(tmp_path: Path) -> None:
    tokenizing = _word_piece(tmp_path, lowercase=True, tokenizer_class="BertTokenizer")
    assert Tokenizing(tokenizing.json, {"pad_token": {"content": "[SEP]"}}).pad_token_id == 3
    assert Tokenizing(tokenizing.json, {"pad_token": "nowhere"}).pad_token_id == 0


def test_a_directory_without_tokenizer_json_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(BadFile, match=r"tokenizer\.json: there is no such file.*save_pretrained") as caught:
        Tokenizing.load(tmp_path)
    assert caught.value.where == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "text", ["", "[", "[1]", "{}", '{"model": {"type": "WordPiece"}}', '{"version": "1.0", "model"']
)
def test_a_broken_tokenizer_is_a_bad_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(BadFile) as caught:
        Tokenizing.load(tmp_path)
    assert caught.value.where == str(tmp_path / "tokenizer.json")


def test_what_cannot_be_encoded_is_said(tmp_path: Path) -> None:
    tokenizing = _word_piece(tmp_path, lowercase=True, tokenizer_class="BertTokenizer")
    with pytest.raises(BadInput, match=r"2 tokens leaves no room beside the 2 special ones\. ?Give at least 3|no room"):
        tokenizing.encode(["a"], max_length=2)
    with pytest.raises(BadInput, match="beside the 3 special ones"):
        tokenizing.encode(["a"], ["b"], max_length=3)
    with pytest.raises(BadInput, match="2 texts and 1 second texts"):
        tokenizing.encode(["a", "b"], ["c"], max_length=9)
    texts = ["fine"] * 1_500 + ["half \ud83d"]
    with pytest.raises(BadInput, match="text 1501 is not a text"):
        tokenizing.encode(texts, max_length=9)
    with pytest.raises(BadInput, match="text 1 is not a text"):
        tokenizing.encode(["fine"], ["half \ude00"], max_length=9)


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 261"):
        train_byte_level_bpe(["a"], vocab_size=260, max_length=8)


def test_tokens_know_their_characters_and_words() -> None:
    tokenizing = train_byte_level_bpe(["some words, more words"] * 5, vocab_size=280, max_length=30)
    text = "more  words,some"
    (plain,) = tokenizing.encode([text], max_length=30)
    (found,) = tokenizing.encode([text], max_length=30, spans=True)
    assert plain.spans == plain.words == ()
    assert found[:3] == plain[:3]
    assert found.spans[0] == found.spans[-1] == (0, 0)
    assert found.words[0] == found.words[-1] == -1
    written = "".join(text[start:end] for start, end in found.spans)
    assert written == text.replace(" ", "")  # blanks belong to no token
    assert list(found.words[1:-1]) == sorted(found.words[1:-1])
    (pair,) = tokenizing.encode(["some"], ["words"], max_length=30, spans=True)
    assert max(end for _, end in pair.spans) == len("words")
