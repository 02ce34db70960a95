"""A tag for every word, of which spans are made: named entities, slots, roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from models.choice import probabilities, require_plain, softened_divergence
from models.columns import Wanted, listed
from models.errors import BadInput
from models.kinds import Reads
from models.labels import unknown
from models.shape import HeadShape
from models.summary import Summary
from models.targets import WordTargets, Writes
from models.task import Answer, Floats, Given, Logits, Metric, PairedTest, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded
    from models.tokenizing import Encoding

OUTSIDE = "O"


class Span(NamedTuple):
    """Words `start` to `end` (exclusive) that are one `kind` of thing."""

    kind: str
    start: int
    end: int


@final
@dataclass(frozen=True, slots=True)
class TokenClassification:
    """Cross-entropy of every token to train; F1 of whole spans, by the tag of each word's first token, to judge.

    Tags are read in the scheme IOB1 or IOB2 and learnt in IOB2. A word's later tokens are taught the tag I- of the same
    kind, so that a tokenizer that cuts other words than the data has finds its way.
    """

    name: str = "token-classification"
    metric: Metric = Metric("span_f1", higher_is_better=True, paired_test=PairedTest.BOOTSTRAP, summary=Summary.F1)
    reading: str = "print([labels[str(int(number))] for number in logits[0].argmax(axis=1)])"
    shared: int = 0
    shows: Shows = Shows.SPANS
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return rows of words, each with a tag or all without."""
        from models.data import read_words

        return read_words(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Return a head for O, and for B- and I- of every kind of span."""
        if table.labels is None:
            raise BadInput("there is no column of tags", where=table.source, fix="Name it, or give labelled data.")
        tags = {tag for row in table.labels for tag in _tags(row)}
        kinds = sorted({tag[2:] for tag in tags if _split(tag)[0] in "BI"})
        if not kinds:
            raise BadInput(
                f"no tag begins with B- or I-: {listed(sorted(tags))}", where=table.source, fix="Give IOB tags."
            )
        labels = (OUTSIDE, *(f"{place}-{kind}" for kind in kinds for place in "BI"))
        return HeadShape(labels, task=self.name, reads=Reads.EACH)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where the head answers texts, or has no tag for what is outside of spans."""
        if not head.tokens or OUTSIDE not in head.labels:
            raise BadInput(
                f"tags of words are asked for, and this head answers {'without O' if head.tokens else 'texts'}",
                where=where,
                fix=head.unlike(self.name),
            )

    def targets(self, table: Table, labels: tuple[str, ...]) -> WordTargets:
        """Return the class of every word."""
        numbers = {label: number for number, label in enumerate(labels)}
        rows = []
        for row, text in enumerate(table.texts):
            words = text.split(" ") if text else []
            tags = None if table.labels is None else in_iob2(_tags(table.labels[row]))
            place, found = 0, np.full((len(words), 4), -1, dtype=np.int64)
            for number, word in enumerate(words):
                found[number, :2] = place, place + len(word)
                place += len(word) + 1
                if tags is not None:
                    if tags[number] not in numbers:
                        raise unknown(tags[number], row + 1, table, labels, kind="tag")
                    found[number, 2:] = _classes(tags[number], numbers)
            rows.append(found)
        return WordTargets(rows)

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, summed over tokens of labelled words."""
        require_plain(smoothing, task=self.name)
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, targets[..., 0], ignore_index=-1, reduction="sum")

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the divergence of softened outputs (Hinton et al. 2015), summed over tokens."""
        return softened_divergence(student, teacher, temperature=temperature)

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return how many spans are right, given, and expected in every row, (rows, 3)."""
        given, found = logits.argmax(axis=1), np.zeros((len(data), 3))
        for row, (start, end) in enumerate(zip(data.offsets[:-1], data.offsets[1:], strict=True)):
            classes, first = np.asarray(data.targets[start:end]).T
            ours, theirs = (
                spans([labels[number] if number >= 0 else OUTSIDE for number in some[first == 1]])
                for some in (given[start:end], classes)
            )
            found[row] = len(ours & theirs), len(ours), len(theirs)
        return found

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return the class of every token, and where words begin, int64 (tokens, 2)."""
        return np.stack([logits.argmax(axis=1), np.asarray(data.targets)[:, 1]], axis=1)

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the spans of the text with their characters, and the mean probability of their tags."""
        shares, text = probabilities(logits[0]), given.text
        words = _words(text, given.windows[0])
        tags = [labels[int(shares[place].argmax())] for place, _, _ in words]
        found = []
        for span in sorted(spans(tags), key=lambda one: one.start):
            inside = words[span.start : span.end]
            start, end = inside[0][1], inside[-1][2]
            score = float(np.mean([shares[place].max() for place, _, _ in inside]))
            found.append({"label": span.kind, "text": text[start:end], "start": start, "end": end, "score": score})
        return Answer("; ".join(f"{one['text']} ({one['label']})" for one in found) or "(none)", {"spans": found})


def spans(tags: Sequence[str]) -> set[Span]:
    """Return the spans of a row of tags; an I- that continues nothing begins one (as conlleval reads them)."""
    found, begin = set(), 0
    kind: str | None = None
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, of = _split(tag)
        if kind is not None and (prefix != "I" or of != kind):
            found.add(Span(kind, begin, place))
            kind = None
        if prefix in "BI" and kind is None:
            kind, begin = of, place
    return found


def in_iob2(tags: Sequence[str]) -> list[str]:
    """Return tags in which every span begins with B-, for tags in IOB1 or IOB2."""
    result: list[str] = []
    for place, tag in enumerate(tags):
        prefix, kind = _split(tag)
        before = _split(tags[place - 1]) if place else (OUTSIDE, "")
        begins = prefix == "I" and (before[0] == OUTSIDE or before[1] != kind)
        result.append(f"B-{kind}" if begins else tag)
    return result


def _split(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    return (prefix, kind) if prefix in ("B", "I") else (OUTSIDE, "")


def _tags(row: object) -> Sequence[str]:
    return row if isinstance(row, tuple) else str(row).split()


def _classes(tag: str, numbers: dict[str, int]) -> tuple[int, int]:
    """Return the numbers of a word's tag: of its first token, and of the others."""
    prefix, kind = _split(tag)
    return numbers[tag], numbers.get(f"I-{kind}", numbers[tag]) if prefix == "B" else numbers[tag]


def _words(text: str, encoding: Encoding) -> list[tuple[int, int, int]]:
    """Return the first token of every word with the word's first character and the one behind its last.

    It is the tokenizer's word, ended too where letters or digits meet another character: a point behind a name is a
    word for itself, as the data have it.
    """
    words: list[tuple[int, int, int]] = []
    number = -1
    for place, ((start, end), own) in enumerate(zip(encoding.spans, encoding.words, strict=True)):
        if start == end:
            continue
        touches = bool(words) and words[-1][2] == start and own == number
        if touches and text[start].isalnum() and text[start - 1].isalnum():
            words[-1] = (words[-1][0], words[-1][1], end)
        else:
            words.append((place, start, end))
        number = own
    return words
