"""A tokenizer with fewer pieces: which are worth keeping, and the same files with numbers without gaps."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from compress.trimming.vocabulary import RULES, Rules
from models.errors import BadFile, Unsupported
from models.tokenizing import Tokenizing

Counts = npt.NDArray[np.int64]

WHERE = "tokenizer.json"
NUMBERED = tuple(f"{name}_token_id" for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk"))
UNUSED = re.compile(r"\[unused\d+\]")  # BERT's vocabularies keep places free, most of them at their beginning
WITHOUT_NUMBERS = ("ByteLevel",)  # post-processors that name no token


@final
@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer pieces: new piece n was number `rows[n]` before.

    The last pieces of `rows` may be forms: characters that became pieces of their own, with the vector of another one.
    """

    tokenizing: Tokenizing
    rows: tuple[int, ...]

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Return old number -> new number of every piece that is kept."""
        return _numbers(self.rows)

    @property
    def forms(self) -> tuple[int, ...]:
        """Return the new numbers of the forms."""
        return tuple(new for new, old in enumerate(self.rows) if self.numbers[old] != new)


def pieces_to_keep(
    tokenizing: Tokenizing, counts: Counts, *, min_count: int = 1, max_pieces: int | None = None, first: int = 0
) -> frozenset[int]:
    """Return the numbers of the pieces seen `min_count` times or more, and of those that must stay with them.

    `counts` (pieces,) says how often each number stands in the training texts. With `max_pieces` only so many of the
    most frequent are chosen, the lower number first among equals; what must stay is not counted. `first` pieces of the
    vocabulary are chosen besides, places that were left free in it skipped: vocabularies are written down in the order
    in which they were learnt, the most frequent pieces first.

    Raises:
        Unsupported: a tokenizer that is none of WordPiece, byte-level BPE and Unigram.
    """
    order = np.lexsort((np.arange(len(counts)), -counts))
    chosen = order[counts[order] >= max(1, min_count)][:max_pieces]
    file = _File(tokenizing)
    general = sorted(number for number, piece in file.texts.items() if not UNUSED.fullmatch(piece))[:first]
    return file.closed({*(int(number) for number in chosen), *general})


def trim_tokenizer(tokenizing: Tokenizing, keep: Collection[int]) -> Trimmed:
    """Return the tokenizer with the pieces of these numbers and those that must stay with them, numbered anew.

    The order stays; added tokens, special ones among them, stay in any case. Every text whose pieces are all kept is
    cut as before, and no text gets an unknown piece that had none.

    Raises:
        Unsupported: a tokenizer that is none of WordPiece, byte-level BPE and Unigram, or that names its special tokens
            in a way that is not known.
        BadFile: a special token that the vocabulary does not have.
    """
    file = _File(tokenizing)
    kept = file.closed(keep)
    model = sorted(number for number in kept if number in file.texts)
    outside = sorted(file.outside.values())
    forms = file.rules.forms(file.model, [piece for piece in file.pieces if piece not in file.added])
    unknown = file.unknown
    sources = [unknown if source is None else file.pieces[source] for source in forms.values()]
    rows = (*model, *sources, *outside)
    vocabulary = {file.texts[number]: new for new, number in enumerate(model)}
    vocabulary |= {piece: len(model) + place for place, piece in enumerate(forms)}
    numbers = _numbers(rows)
    content = {
        **file.content,
        "model": file.rules.rebuilt(file.model, vocabulary),
        "added_tokens": [{**token, "id": numbers[file.number(token)]} for token in file.tokens],
        "post_processor": _processor(file.content.get("post_processor"), numbers),
        "padding": _padding(file.content.get("padding"), numbers),
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Trimmed(Tokenizing(text, _config(tokenizing.config, numbers)), rows)


@final
class _File:
    """A `tokenizer.json`, taken apart.

    `pieces` and `texts` are the model's, by text and by number; `added` are the texts of added tokens and `outside`
    those of them that the model does not hold.
    """

    def __init__(self, tokenizing: Tokenizing) -> None:
        self.content: dict[str, Any] = json.loads(tokenizing.json)
        self.model: dict[str, Any] = self.content["model"]
        self.rules = _rules(self.model)
        self.pieces = self.rules.pieces(self.model)
        self.texts = {number: piece for piece, number in self.pieces.items()}
        self.tokens: list[dict[str, Any]] = list(self.content.get("added_tokens") or [])
        self.added = {str(token["content"]) for token in self.tokens}
        self.outside = {str(one["content"]): int(one["id"]) for one in self.tokens if one["content"] not in self.pieces}

    def number(self, token: Mapping[str, Any]) -> int:
        """Return the number of an added token."""
        text = str(token["content"])
        return self.pieces[text] if text in self.pieces else self.outside[text]

    @property
    def unknown(self) -> int:
        """Return the number of the unknown piece, or the first where there is none."""
        if self.model.get("unk_id") is not None:
            return int(self.model["unk_id"])
        return self.pieces.get(str(self.model.get("unk_token")), 0)

    def closed(self, keep: Collection[int]) -> frozenset[int]:
        """Return these numbers and those of all pieces that must stay with them."""
        named = {self.texts[number] for number in keep if number in self.texts}
        named |= self.rules.always(self.model, self.pieces) | self.added & self.pieces.keys()
        named |= {self.texts[number] for number in _named(self.content) if number in self.texts}
        kept = {self.pieces[piece] for piece in self.rules.closed(self.model, named)}
        return frozenset(kept | set(self.outside.values()))


def _numbers(rows: Sequence[int]) -> dict[int, int]:
    """Return old number -> new number; a form, which comes after the piece whose vector it takes, does not count."""
    return {old: new for new, old in reversed(list(enumerate(rows)))}


def _rules(model: Mapping[str, Any]) -> Rules:
    kind = str(model.get("type"))
    if kind not in RULES:
        raise Unsupported(f"the vocabulary of a {kind} tokenizer cannot be trimmed", where=WHERE, fix=_known())
    return RULES[kind]


def _known() -> str:
    return f"Leave trim out. It knows {', '.join(sorted(RULES))}."


def _named(content: Mapping[str, Any]) -> set[int]:
    """Return the numbers that the post-processor and the padding name."""
    named: set[int] = set()
    # Renumbering by a table that notes what it is asked for reads the same places as the renumbering itself.
    noted = _Noted(named)
    _processor(content.get("post_processor"), noted)
    _padding(content.get("padding"), noted)
    return named


class _Noted(dict[int, int]):
    """A table in which every number stands for itself, and which notes what was asked for."""

    def __init__(self, asked: set[int]) -> None:
        super().__init__()
        self.asked = asked

    def __missing__(self, number: int) -> int:
        self.asked.add(number)
        return number


def _processor(value: Any, numbers: Mapping[int, int]) -> Any:
    """Return a post-processor with new numbers."""
    if value is None or value["type"] in WITHOUT_NUMBERS:
        return value
    if value["type"] == "Sequence":
        return {**value, "processors": [_processor(one, numbers) for one in value["processors"]]}
    if value["type"] in ("BertProcessing", "RobertaProcessing"):
        return {**value, **{key: [value[key][0], _new(numbers, value[key][1])] for key in ("sep", "cls")}}
    if value["type"] == "TemplateProcessing":
        special = {
            name: {**token, "ids": [_new(numbers, number) for number in token["ids"]]}
            for name, token in value["special_tokens"].items()
        }
        return {**value, "special_tokens": special}
    raise Unsupported(f"the special tokens of a {value['type']} cannot be numbered anew", where=WHERE, fix=_known())


def _padding(value: Any, numbers: Mapping[int, int]) -> Any:
    return value if value is None else {**value, "pad_id": _new(numbers, value["pad_id"])}


def _new(numbers: Mapping[int, int], old: Any) -> int:
    try:
        return numbers[int(old)]
    except KeyError:
        raise BadFile(f"names token {old}, which the vocabulary does not have", where=WHERE) from None


def _config(config: Mapping[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """Return `tokenizer_config.json` with new numbers."""
    result = dict(config)
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        kept = {int(old): token for old, token in decoder.items() if int(old) in numbers}
        result["added_tokens_decoder"] = {str(numbers[old]): token for old, token in kept.items()}
    for key in NUMBERED:
        if isinstance(config.get(key), int):
            result[key] = numbers.get(config[key])
    return result
