"""The answer to a question, where it stands in a text; or none, where it does not."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import numpy.typing as npt

from models.choice import require_plain
from models.columns import Wanted
from models.errors import BadInput
from models.kinds import Reads
from models.shape import HeadShape
from models.summary import Summary
from models.targets import SpanTargets, Writes
from models.task import Answer, Besides, Floats, Given, Logits, Metric, PairedTest, Shows, Targets

if TYPE_CHECKING:
    from torch import Tensor

    from models.data import Table
    from models.encoded import Encoded

OUTPUTS = ("start", "end")
LONGEST = 30  # tokens of an answer
CANDIDATES = 20  # starts and ends that are tried with each other
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


class Found(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text, equal where there is no answer, and the sum of both logits."""

    start: int
    end: int
    score: float


@final
@dataclass(frozen=True, slots=True)
class QuestionAnswering:
    """Cross-entropy of the first and the last token to train (Devlin et al. 2019, section 4.2); F1 of the words of the
    answer (Rajpurkar et al. 2016) to judge, and beside it the share of answers that have the same words.

    The first text is the question, the second the context, which is read in windows; the best span of all counts. The
    first token says that there is none.
    """

    name: str = "question-answering"
    metric: Metric = Metric(
        "answer_f1",
        higher_is_better=True,
        paired_test=PairedTest.BOOTSTRAP,
        besides=(Besides("exact_match", Summary.MEAN, 1),),
    )
    reading: str = "print(text.tokens[int(logits[0, :, 0].argmax()) : int(logits[0, :, 1].argmax()) + 1])"
    shared: int = 128
    shows: Shows = Shows.EXCERPT
    writes: Writes = Writes.NOTHING

    def read(self, wanted: Wanted, split: str | None) -> Table:
        """Return questions with their contexts, each with its answers or all without."""
        from models.questions import read_questions

        return read_questions(wanted, split)

    def head_of(self, table: Table) -> HeadShape:
        """Return a head of two outputs for every token."""
        if table.labels is None:
            raise BadInput("there is no column of answers", where=table.source, fix="Give labelled data.")
        return HeadShape(OUTPUTS, task=self.name, reads=Reads.EACH)

    def check(self, head: HeadShape, *, where: str) -> None:
        """Raise BadInput where the head does not give two numbers for every token."""
        if not head.tokens or len(head.labels) != len(OUTPUTS):
            raise BadInput(
                f"an answer has a start and an end, and this head gives {len(head.labels)} numbers for each "
                f"{'token' if head.tokens else 'text'}",
                where=where,
                fix=head.unlike(self.name),
            )

    def targets(self, table: Table, labels: tuple[str, ...]) -> SpanTargets:
        """Return the characters of every answer."""
        if table.labels is None:
            return SpanTargets([None] * len(table))
        spans = []
        for answers in table.labels:
            assert isinstance(answers, tuple)
            each = [(start, start + len(text)) for text, start in answers]
            spans.append(np.array(each, dtype=np.int64).reshape(-1, 2))
        return SpanTargets(list(spans))

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of the right start and the right end among all tokens of a window, summed over
        windows that are labelled.
        """
        require_plain(smoothing, task=self.name)
        row = targets[:, 3].cumsum(dim=0) - 1  # (tokens,)
        known = targets[:, 0] >= 0
        total = logits.new_zeros(())
        for output, column in ((0, 0), (1, 2)):
            given = logits[:, output]
            highest = given.new_full((int(row[-1]) + 1,), float("-inf")).scatter_reduce(0, row, given.detach(), "amax")
            sums = given.new_zeros(len(highest)).scatter_add(0, row, (given - highest[row]).exp())
            each = (sums.log() + highest)[row] - given
            total = total + (each * (targets[:, column] == 1) * known).sum()
        return total

    def divergence(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Return the squared distance, summed over tokens: a token does not know the others it is chosen among."""
        return (student - teacher).square().sum()

    def statistics(self, logits: Logits, data: Encoded, labels: tuple[str, ...]) -> Floats:
        """Return the F1 of every example's best answer with the nearest of those that are right, and 1 where it has the
        words of one of them in their order; (examples, 2).
        """
        assert data.table is not None
        assert data.table.pairs is not None
        scores = []
        for example, windows in _examples(data):
            context, answers = data.table.pairs[example], _right(data, example, windows)
            best = _best([(logits[one], data.spans[one]) for one in windows])
            given = context[best.start : best.end]
            f1 = max(answer_f1(given, right) for right in answers)
            scores.append((f1, any(_words(given) == _words(right) for right in answers)))
        return np.array(scores, dtype=np.float64).reshape(-1, 2)

    def predict(self, logits: Logits, data: Encoded) -> Targets:
        """Return the best answer of every window, int64 (tokens, 4)."""
        found = np.array(data.targets)
        for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
            window = slice(int(start), int(end))
            found[window, [[0], [2]]] = 0
            first, last, _ = _best_tokens(logits[window], data.spans[window])
            found[start + first, 0] = found[start + last, 2] = 1
        return found

    def answer(self, logits: Sequence[Logits], labels: tuple[str, ...], given: Given) -> Answer:
        """Return the best answer with its characters, and how likely its start and end are in its window."""
        windows = [(part, np.array(one.spans, dtype=np.int32)) for part, one in zip(logits, given.windows, strict=True)]
        best = _best(windows)
        text = (given.pair or "")[best.start : best.end]
        values = {"answer": text, "start": best.start, "end": best.end, "score": best.score}
        return Answer(text or "(no answer)", values)


def answer_f1(given: str, right: str) -> float:
    """Return the F1 of the words of two answers, without case, punctuation and articles; of no words, whether both have
    none (SQuAD's official evaluation).
    """
    ours, theirs = _words(given), _words(right)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def _words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ARTICLES.sub(" ", plain).split()


def _examples(data: Encoded) -> Iterator[tuple[int, list[slice]]]:
    """Yield every example's number and where the tokens of its windows lie."""
    borders = np.flatnonzero(np.diff(data.examples)) + 1
    for rows in np.split(np.arange(len(data)), borders):
        if len(rows):
            yield (
                int(data.examples[rows[0]]),
                [slice(int(data.offsets[row]), int(data.offsets[row + 1])) for row in rows],
            )


def _right(data: Encoded, example: int, windows: list[slice]) -> list[str]:
    """Return the answers that are right: those of the example or, where it has none of its own, of its targets."""
    assert data.table is not None
    assert data.table.pairs is not None
    if data.table.labels is not None:
        answers = data.table.labels[example]
        assert isinstance(answers, tuple)
        return [text for text, _ in answers] or [""]
    context, found = data.table.pairs[example], [""]
    for window in windows:
        starts, ends = (np.flatnonzero(data.targets[window, column] == 1) for column in (0, 2))
        if len(starts) and len(ends) and starts[0] > 0:
            found = [context[data.spans[window][starts[0], 0] : data.spans[window][ends[0], 1]]]
    return found


def _best(windows: Sequence[tuple[Logits, npt.NDArray[np.int32]]]) -> Found:
    """Return the best answer of all windows of a context."""
    each = []
    for logits, spans in windows:
        first, last, score = _best_tokens(logits, spans)
        each.append(Found(int(spans[first, 0]), int(spans[last, 1]), score))
    inside = [one for one in each if one.end > one.start]
    return max(inside or each, key=lambda one: one.score)


def _best_tokens(logits: Logits, spans: npt.NDArray[np.int32]) -> tuple[int, int, float]:
    """Return the first and the last token of a window's best answer, both 0 where none is better than no answer."""
    inside = np.flatnonzero(spans[:, 1] > spans[:, 0])
    nothing = float(logits[0].sum())
    if not len(inside):
        return 0, 0, nothing
    starts, ends = (inside[np.argsort(-logits[inside, output], kind="stable")[:CANDIDATES]] for output in (0, 1))
    length = ends[None, :] - starts[:, None]
    sums = np.where((length >= 0) & (length < LONGEST), logits[starts, 0][:, None] + logits[ends, 1][None, :], -np.inf)
    first, last = np.unravel_index(int(sums.argmax()), sums.shape)
    best = float(sums[first, last])
    return (int(starts[first]), int(ends[last]), best) if best > nothing else (0, 0, nothing)
