"""From text to token numbers, by the `tokenizer.json` that belongs to a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders

from models.errors import BadFile, BadInput
from models.files import digest_of, read_object, write_json, write_text
from models.shape import ModelShape

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

# The runtime's objects for a batch are some hundred times larger than its numbers: they live for one chunk only.
_CHUNK = 1024
_PAD_NAMES = ("[PAD]", "<pad>")
_NEW_CLASS = "TokenizersBackend"  # of transformers 5, for whatever has no class of its own
_BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast")
_BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_MAKE = (
    "Write one where the model comes from: "
    "AutoTokenizer.from_pretrained(SOURCE, use_fast=True).save_pretrained(DIRECTORY)."
)


class Encoding(NamedTuple):
    """One text or pair as numbers: `ids` and `token_type_ids` are equally long, and where they were asked for `spans`,
    the first character of each token and the one behind its last (equal for special tokens), and `words`, the number
    of the word that the tokenizer cut it from (-1 for special tokens).
    """

    ids: list[int]
    token_type_ids: list[int]
    truncated: bool
    spans: Sequence[tuple[int, int]] = ()
    words: Sequence[int] = ()

    @property
    def inputs(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the arrays of a batch of this text alone, by the names of a network's inputs."""
        ids, kinds = (np.array([row], dtype=np.int64) for row in (self.ids, self.token_type_ids))
        return {"input_ids": ids, "token_type_ids": kinds}


@final
@dataclass(frozen=True)
class Tokenizing:
    """A tokenizer: the text of its `tokenizer.json` and the values of its `tokenizer_config.json`.

    What the text says about padding and truncation is kept in the file and not followed: lengths are chosen per call.
    """

    json: str
    config: dict[str, Any]

    @staticmethod
    def load(directory: Path) -> Tokenizing:
        """Return the tokenizer of a checkpoint or bundle directory; `tokenizer_config.json` may be absent.

        Where the two files differ on lower case, accents or Chinese characters for a BERT tokenizer, the configuration
        is right, as for `transformers`, and `json` is corrected.

        Raises:
            BadFile: there is no `tokenizer.json`, or a file is broken.
        """
        path = directory / TOKENIZER_FILE
        if not path.is_file():
            raise BadFile("there is no such file: only fast tokenizers are read", where=str(path), fix=_MAKE)
        content = read_object(path)
        config_path = directory / CONFIG_FILE
        config = read_object(config_path) if config_path.is_file() else {}
        text = path.read_text(encoding="utf-8") if _agree(content, config) else json.dumps(content, ensure_ascii=False)
        tokenizing = Tokenizing(text, config)
        try:
            tokenizing._tokenizer  # noqa: B018
        except BadFile as error:
            raise BadFile(error.what, where=str(path), fix=error.fix) from error
        return tokenizing

    def shipped(self, *, token_types: bool) -> Tokenizing:
        """Return the same tokenizer with no blanks between the words of its text, which are a third of it, and with
        settings that `transformers` 4 and 5 and transformers.js take alike; `token_types` says whether they are read.
        """
        text = json.dumps(json.loads(self.json), ensure_ascii=False, separators=(",", ":"))
        config = dict(self.config)
        if config.get("tokenizer_class") in (None, _NEW_CLASS):
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(config.get("extra_special_tokens"), list):  # version 4 has a mapping there
            config["additional_special_tokens"] = config.pop("extra_special_tokens")
        names = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
        return Tokenizing(text, config | {"model_input_names": names})

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json`, its text unchanged, and `tokenizer_config.json`."""
        write_text(directory / TOKENIZER_FILE, self.json)
        write_json(directory / CONFIG_FILE, self.config)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of both files' contents; the order of configuration keys does not matter."""
        return digest_of([self.json, self.config])

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """Return the runtime object, with neither padding nor truncation."""
        try:
            tokenizer = Tokenizer.from_str(self.json)
        except Exception as error:
            # The library raises the bare Exception class, so nothing narrower can be named.
            raise BadFile(f"not a tokenizer ({error})", where=TOKENIZER_FILE, fix=_MAKE) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Return the number of different tokens, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def highest_id(self) -> int:
        """Return the largest number the tokenizer can give: an embedding table needs one row more than this."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def pad_token_id(self) -> int:
        """Return the padding token's number: the configuration's, or `[PAD]` or `<pad>`, or 0 (padding is masked)."""
        named = self.config.get("pad_token")
        content = named.get("content") if isinstance(named, dict) else named
        for name in (content, *_PAD_NAMES):
            number = self._tokenizer.token_to_id(name) if isinstance(name, str) else None
            if number is not None:
                return int(number)
        return 0

    def problem(self, shape: ModelShape) -> str | None:
        """Return why a network of this shape cannot take these tokens, or None."""
        if shape.image is not None:
            return "the model reads images, not texts"
        if self.highest_id < shape.vocab_size:
            return None
        return f"{TOKENIZER_FILE} gives ids up to {self.highest_id}, the model's table has {shape.vocab_size} rows"

    def read(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int, shared: int
    ) -> list[list[Encoding]]:
        """Return each text, or text and pair, in windows that share tokens where `shared` is not 0, else cut.

        Raises:
            BadInput: as `encode` and `windows` raise.
        """
        if shared:
            return self.windows(texts, pairs, max_length=max_length, shared=shared)
        return [[one] for one in self.encode(texts, pairs, max_length=max_length, spans=True)]

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int, spans: bool = False
    ) -> list[Encoding]:
        """Return one encoding per text (or per text and its pair), special tokens included, without padding.

        What exceeds `max_length` tokens is cut off, from the longer one of a pair first, on the side that the
        configuration names, and marked as truncated.

        Raises:
            BadInput: `max_length` leaves no room for a word, there is not one pair per text, or a text holds half a
                surrogate pair.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise BadInput(f"{len(texts)} texts and {len(pairs)} second texts do not make pairs")
        self._limit(max_length, paired=pairs is not None)
        result: list[Encoding] = []
        for start in range(0, len(texts), _CHUNK):
            first = texts[start : start + _CHUNK]
            inputs = list(first) if pairs is None else list(zip(first, pairs[start : start + _CHUNK], strict=True))
            result += self._encode_chunk(inputs, start, max_length, spans=spans)
        return result

    def template(self, *, paired: bool) -> list[dict[str, int]]:
        """Return what a text, or a text and its pair, is read as, in order, each with its token type as `kind`: special
        tokens by their `id`, and where the tokens of the `text` 0 or 1 stand.

        Raises:
            BadFile: the tokenizer reads nothing of a plain letter.
        """
        self._tokenizer.no_truncation()
        one = self._tokenizer.encode("a", "a" if paired else None)
        found: list[dict[str, int]] = []
        for token, kind, special, part in zip(
            one.ids, one.type_ids, one.special_tokens_mask, one.sequence_ids, strict=True
        ):
            if special or part is None:
                found.append({"id": token, "kind": kind})
            elif {"text": part, "kind": kind} not in found:
                found.append({"text": part, "kind": kind})
        if sum("text" in piece for piece in found) != 1 + paired:
            raise BadFile("the tokenizer reads nothing of the letter a", where=TOKENIZER_FILE, fix=_MAKE)
        return found

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of texts as they are, whole and without special tokens.

        Raises:
            BadInput: a text holds half a surrogate pair.
        """
        self._tokenizer.no_truncation()
        with _texts_told(texts, 0):
            return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def placed(self, text: str) -> tuple[list[int], list[int]]:
        """Return the token numbers of a text as `plain` does, and the character behind the last of each."""
        self._tokenizer.no_truncation()
        with _texts_told([text], 0):
            found = self._tokenizer.encode(text, add_special_tokens=False)
        return found.ids, [end for _, end in found.offsets]

    def decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of token numbers, without special tokens."""
        texts: list[str] = self._tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True)
        return texts

    def pieces(self, row: Sequence[int]) -> list[str]:
        """Return the pieces of token numbers, as the vocabulary writes them."""
        return [str(self._tokenizer.id_to_token(number)) for number in row]

    def speller(self, before: Sequence[int] = ()) -> Callable[[int], str]:
        """Return what gives for each token of a text, one after another, the characters that are known with it: none in
        the middle of one. `before` are tokens that stand before the first.
        """
        stream = decoders.DecodeStream(ids=list(before), skip_special_tokens=True)
        return lambda token: stream.step(self._tokenizer, token) or ""

    def windows(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int, shared: int
    ) -> list[list[Encoding]]:
        """Return as many encodings of each text and its pair as the pair needs, each with the whole text and `shared`
        tokens of the window before, or a third of the length where that is less. Their spans are those of the pair;
        tokens of the text have none.

        A text that would take more than half of the length is cut, and its windows are marked as truncated.

        Raises:
            BadInput: as `encode` raises.
        """
        if pairs is None or len(pairs) != len(texts):
            raise BadInput(f"{len(texts)} texts need a second text each, to be read in windows")
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        shared, room = min(shared, max_length // 3), (max_length - special) // 2
        if room <= shared:
            raise BadInput(f"windows of {max_length} tokens are too short beside the {special} special ones")
        self._tokenizer.no_truncation()
        result: list[list[Encoding]] = []
        for start in range(0, len(texts), _CHUNK):
            both = list(zip(texts[start : start + _CHUNK], pairs[start : start + _CHUNK], strict=True))
            with _texts_told(both, start):
                apart = [
                    self._tokenizer.encode_batch(list(some), add_special_tokens=False)
                    for some in zip(*both, strict=True)
                ]
            for given, first, second in zip(both, *apart, strict=True):
                cut = len(first.ids) > room
                first.truncate(room)
                second.truncate(max_length - special - len(first.ids), stride=shared)
                windows = [self._tokenizer.post_process(first, part) for part in (second, *second.overflowing)]
                found = [(window, _places(window, given, only=1)) for window in windows]
                result.append([Encoding(window.ids, window.type_ids, cut, *places) for window, places in found])
        return result

    def _limit(self, max_length: int, *, paired: bool) -> None:
        special = self._tokenizer.num_special_tokens_to_add(paired)
        if max_length <= special:
            raise BadInput(
                f"a length of {max_length} tokens leaves no room beside the {special} special ones",
                fix=f"Give at least {special + 1}.",
            )
        direction = "left" if self.config.get("truncation_side") == "left" else "right"
        now = self._tokenizer.truncation
        if now is None or (now["max_length"], now["strategy"]) != (max_length, "longest_first"):
            self._tokenizer.enable_truncation(max_length, stride=0, strategy="longest_first", direction=direction)

    def _encode_chunk(
        self, inputs: list[str] | list[tuple[str, str]], start: int, max_length: int, *, spans: bool
    ) -> list[Encoding]:
        encode = self._tokenizer.encode_batch if spans else self._tokenizer.encode_batch_fast
        with _texts_told(inputs, start):
            encoded = encode(inputs)
        result: list[Encoding] = []
        for one in encoded:
            ids = one.ids
            cut = len(ids) == max_length and bool(one.overflowing)
            places = _places(one, inputs[len(result)]) if spans else ((), ())
            result.append(Encoding(ids, one.type_ids, cut, *places))
        return result


@contextmanager
def _texts_told(inputs: Sequence[str | tuple[str, str]], start: int) -> Iterator[None]:
    """Raise BadInput for the text that cannot be written where the library refuses one; `start` of them came before."""
    try:
        yield
    except TypeError as error:
        for number, text in enumerate(inputs, start=start + 1):
            if not _is_text(text):
                raise BadInput(
                    f"text {number} is not a text that can be written as UTF-8",
                    fix="Remove the broken characters (half a surrogate pair).",
                ) from error
        raise


def _places(encoded: Any, text: Any, *, only: int | None = None) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the characters of every token without the blanks before it, which byte-level tokens take in, and the
    number of its word; with `only`, of the first or the second text alone.
    """
    spans, words = [], []
    for (start, end), word, special, part in zip(
        encoded.offsets, encoded.word_ids, encoded.special_tokens_mask, encoded.sequence_ids, strict=True
    ):
        words.append(-1 if word is None or only not in (None, part) else int(word))
        if special or part is None or only not in (None, part):
            spans.append((0, 0))
            continue
        whole = text if isinstance(text, str) else text[part]
        inner = whole[start:end]
        spans.append((start + len(inner) - len(inner.lstrip()), end))
    return spans, words


def _agree(content: dict[str, Any], config: dict[str, Any]) -> bool:
    """Put a BERT configuration's settings into the tokenizer's normalizer; return whether they were there already."""
    normalizer = content.get("normalizer")
    if config.get("tokenizer_class") not in _BERT_CLASSES or not isinstance(normalizer, dict):
        return True
    if normalizer.get("type") != "BertNormalizer":
        return True
    told = {ours: config[theirs] for theirs, ours in _BERT_SETTINGS.items() if theirs in config}
    agreed = all(normalizer.get(name) == value for name, value in told.items())
    normalizer.update(told)
    return agreed


def _is_text(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_text(part) for part in value)
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
