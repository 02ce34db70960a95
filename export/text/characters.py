"""What a tokenizer of words does to every character of Unicode, found out by asking it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Final, final

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from export.text.special_tokens import LEAVE_OUT
from models.errors import Unsupported

NORMALIZERS: Final = ("BertNormalizer",)
PRE_TOKENIZERS: Final = ("BertPreTokenizer",)
# A character that stays as it is, within a word: what stands between two of them came from one character alone, because
# accents never move across it.
_MARK: Final = "0"
_CHUNK: Final = 1 << 15
_CHARACTERS: Final = 0x110000
_SURROGATES: Final = range(0xD800, 0xE000)


@final
@dataclass(frozen=True, slots=True)
class Characters:
    """What becomes of a character: it is `removed`; it ends a word as a `blank` does; it is a word `alone`; it is
    `changed` into others, among them blanks; or, in none of these, it is a part of a word as it is.
    """

    removed: frozenset[str]
    blank: frozenset[str]
    alone: frozenset[str]
    changed: dict[str, str]


def characters_of(normalizer: object, pre_tokenizer: object) -> Characters:
    """Return what a normalizer and a pre-tokenizer, as a `tokenizer.json` has them, do to every character.

    Raises:
        Unsupported: they may see more of a text than one character at once, or are not known here.
    """
    for kind, found, known in (
        ("normalizer", normalizer, NORMALIZERS),
        ("pre-tokenizer", pre_tokenizer, PRE_TOKENIZERS),
    ):
        name = found.get("type") if isinstance(found, dict) else None
        if name not in known:
            raise Unsupported(
                f"a {kind} of the kind {name} has no form in a graph of word pieces",
                where="tokenizer.json",
                fix=f"{LEAVE_OUT} It knows {', '.join(known)}.",
            )
    return _asked(json.dumps(normalizer), json.dumps(pre_tokenizer))


@lru_cache(maxsize=4)
def _asked(normalizer: str, pre_tokenizer: str) -> Characters:
    parts = {"normalizer": json.loads(normalizer), "pre_tokenizer": json.loads(pre_tokenizer)}
    plain = json.loads(Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str())
    tokenizer = Tokenizer.from_str(json.dumps(plain | parts))
    removed: set[str] = set()
    blank: set[str] = set()
    alone: set[str] = set()
    within: set[str] = set()
    changed: dict[str, str] = {}
    for character, found, kinds in _each(tokenizer):
        if not kinds:
            removed.add(character)
        elif set(kinds) == {_BLANK}:
            blank.add(character)
        elif found.strip() != character:
            changed[character] = found
            within |= {one for one, kind in zip(found, kinds, strict=True) if kind == _WITHIN}
        elif _ALONE in kinds:
            alone.add(character)
    if within & alone:
        raise Unsupported(
            f"{min(within & alone)!r} is a word alone or a part of one, by what it was made from",
            where="tokenizer.json",
            fix=LEAVE_OUT,
        )
    return Characters(frozenset(removed), frozenset(blank), frozenset(alone), changed)


_BLANK, _ALONE, _WITHIN = range(3)


def _each(tokenizer: Tokenizer) -> Iterator[tuple[str, str, bytes]]:
    """Yield characters, what each is normalized to, and of each character of that what a cut into words makes of it;
    those that are left out stay as they are, within words.
    """
    for start in range(0, _CHARACTERS, _CHUNK):
        given = [chr(code) for code in range(start, start + _CHUNK) if code not in _SURROGATES and chr(code) != _MARK]
        text = tokenizer.normalizer.normalize_str(_MARK + _MARK.join(given) + _MARK)
        kinds = bytearray([_BLANK]) * len(text)
        for _, (first, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            kinds[first:end] = bytes([_ALONE]) if end == first + 1 else bytes([_WITHIN]) * (end - first)
        found = text.split(_MARK)[1:-1]
        ends = accumulate(len(one) + 1 for one in found)
        for character, one, end in zip(given, found, ends, strict=True):
            if one != character or kinds[end - 1] != _WITHIN or len(one) != 1:
                yield character, one, bytes(kinds[end - len(one) : end])
