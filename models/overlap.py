"""What a text and those that are expected have in common: the counts that BLEU and chrF are made of, and ROUGE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

WORDS_ORDER = 4  # BLEU's longest n-gram, of words
CHARACTERS_ORDER = 6  # chrF's, of characters
BLEU_COUNTS = 2 * WORDS_ORDER + 2
CHRF_COUNTS = 3 * CHARACTERS_ORDER
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_APART = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_OTHER = re.compile(r"[^a-z0-9]+")


def bleu_counts(text: str, expected: Sequence[str]) -> list[int]:
    """Return how many n-grams of 1 to 4 words are right, how many there are, and the words of the text and of the
    expected one that is nearest in length: the sums over texts make BLEU (Papineni et al. 2002).

    Words are those of `mteval-v13a`, as sacreBLEU has them (Post 2018).
    """
    ours = words_13a(text)
    others = [words_13a(one) for one in expected]
    most = [Counter[tuple[str, ...]]() for _ in range(WORDS_ORDER)]
    for words in others:
        for order, best in enumerate(most, start=1):
            best |= _grams(words, order)
    given = [_grams(ours, order) for order in range(1, WORDS_ORDER + 1)]
    right = [(some & best).total() for some, best in zip(given, most, strict=True)]
    nearest = min((len(words) for words in others), key=lambda length: (abs(length - len(ours)), length))
    return [*right, *(some.total() for some in given), len(ours), nearest]


def words_13a(text: str) -> list[str]:
    """Return the words of a text as `mteval-v13a` cuts them."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    line = f" {line} "
    for pattern, replacement in _APART:
        line = pattern.sub(replacement, line)
    return line.split()


def chrf_counts(text: str, expected: Sequence[str]) -> list[int]:
    """Return for n-grams of 1 to 6 characters without blanks how many there are, are expected and are right, against
    the expected text that is best: the sums over texts make chrF (Popovic 2015).
    """
    ours = _characters(text)
    found = [_triples(ours, _characters(one)) for one in expected]
    return max(found, key=chrf)


def chrf(counts: Sequence[float]) -> float:
    """Return chrF, from 0 to 1, of counts as `chrf_counts` returns them: recall counts four times as precision."""
    orders = [counts[3 * order : 3 * order + 3] for order in range(CHARACTERS_ORDER)]
    known = [(right / given, right / wanted) for given, wanted, right in orders if given and wanted]
    if not known:
        return 0.0
    precision, recall = (sum(column) / len(known) for column in zip(*known, strict=True))
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def rouge_scores(text: str, expected: Sequence[str]) -> tuple[float, float, float]:
    """Return the F1 of words, of pairs of words and of the longest common subsequence, each against the expected text
    that is best: ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), words of a-z and 0-9 in lower case, without stems.
    """
    ours = _plain_words(text)
    found = [_rouge(ours, _plain_words(one)) for one in expected]
    first, second, longest = (max(column) for column in zip(*found, strict=True))
    return first, second, longest


def _rouge(ours: list[str], theirs: list[str]) -> tuple[float, float, float]:
    of_grams = [
        _f1((_grams(ours, order) & _grams(theirs, order)).total(), len(ours) - order + 1, len(theirs) - order + 1)
        for order in (1, 2)
    ]
    return of_grams[0], of_grams[1], _f1(_common(ours, theirs), len(ours), len(theirs))


def _f1(right: int, given: int, wanted: int) -> float:
    return 2 * right / (given + wanted) if right else 0.0


def _common(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _characters(text: str) -> list[Counter[str]]:
    plain = "".join(text.split())
    return [
        Counter(plain[start : start + order] for start in range(len(plain) - order + 1))
        for order in range(1, CHARACTERS_ORDER + 1)
    ]


def _triples(ours: list[Counter[str]], theirs: list[Counter[str]]) -> list[int]:
    counts: list[int] = []
    for given, wanted in zip(ours, theirs, strict=True):
        # Where nothing is expected of an order nothing is counted, as sacreBLEU has it.
        counts += [given.total() if wanted else 0, wanted.total(), (given & wanted).total()]
    return counts


def _plain_words(text: str) -> list[str]:
    return _OTHER.sub(" ", text.lower()).split()
