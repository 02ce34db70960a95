"""The choice of words as values of a graph: what may be written, the likeliest, and the beams of `models.beams`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from export.emit import Emit
from export.values import Carried, Port, Value
from models.beams import NEVER, candidates
from models.generation_settings import Ending, Generation

NOT = np.float32(-np.inf)


class Beams(NamedTuple):
    """The texts of a search: those that run, `written` (beams, time) with the sum of their log shares `scores` (beams,
    1, 1), and those that `ended` (beams, time), padded behind their end, with their final scores `marks` (beams,), of
    which minus infinity is no text yet. The best are first.
    """

    written: Value
    scores: Value
    ended: Value
    marks: Value


class Round(NamedTuple):
    """A round of writing before a word is chosen: its `number` from 0 on, the `tokens` (rows, new) that it is given and
    those that the first one is, the logits (rows, 1, words) behind them, and what it keeps, a row for each text.

    There are as many `rows` as beams, or by a name as many but for the first round, which has one that all continue.
    """

    number: Value
    rows: int | str
    begun: Value
    tokens: Value
    logits: Value
    kept: list[Carried]


class _Grown(NamedTuple):
    """What a round made: the beams, the words (beams, 1) that they wrote, which beams of before they continue (beams,),
    and whether there is more to find.
    """

    beams: Beams
    tokens: Value
    order: Value
    going: Value


class Choice:
    """The choice among `words` words, in at most `room` rounds; where some are `listed` (words,), logits are of these
    alone.
    """

    def __init__(
        self, emit: Emit, settings: Generation, *, words: int, pad: int, room: Value, listed: Value | None = None
    ) -> None:
        self.emit, self.settings, self.words, self.pad, self.room = emit, settings, words, pad, room
        self.listed, self.wanted = listed, candidates(settings, words)

    def greedy(self, one: Round) -> tuple[Value]:
        """Return the text (1, time) of the likeliest words, with the one that ends it."""
        emit = self.emit
        place = emit.node("ArgMax", self._allowed(one.logits, one.number), role="likeliest", axis=-1, keepdims=0)
        token = self._word_at(place, "token")
        goes_on = emit.node("Gather", self._words(self.settings.end, within=False), token, role="goes_on")
        written = Value(Port("written", "int64", (1, "time")))
        text = emit.node("Concat", written, token, role="text", axis=1)
        nothing = emit.constant(np.zeros((1, 0), dtype=np.int64), "nothing_written")
        carried = [Carried(nothing, written, text), Carried(one.begun, one.tokens, token), *one.kept]
        going = emit.node("Squeeze", goes_on, role="going")
        last, *_ = emit.loop(self.room, going, carried, number=one.number, role="last")
        return (last,)

    def searched(self, one: Round) -> tuple[Value, Value]:
        """Return the best texts (beams, time), each with the token that ends it and padding behind, and their scores
        (beams,).
        """
        emit, beams = self.emit, self.settings.beams
        before = Beams(
            Value(Port("written", "int64", (beams, "time"))),
            Value(Port("scores", "float32", (beams, 1, 1))),
            Value(Port("ended", "int64", (beams, "time"))),
            Value(Port("marks", "float32", (beams,))),
        )
        grown = self._grown(one, before)
        order = grown.order
        if one.rows != beams:
            highest = emit.node("Mul", one.number, self._number(beams, "beams"), role="highest_row")
            order = emit.node("Min", order, highest, role="rows_continued")
        carried = [Carried(*part) for part in zip(self._begun(), before, grown.beams, strict=True)]
        carried.append(Carried(one.begun, one.tokens, grown.tokens))
        for first, given, made in one.kept:
            carried.append(Carried(first, given, emit.node("Gather", made, order, role="continued", axis=0)))
        last = emit.loop(self.room, grown.going, carried, number=one.number, role="last")
        return self._finished(Beams(*last[: len(before)]))

    def _begun(self) -> Beams:
        """Return the beams of nothing: the first runs alone, as the others would write what it writes."""
        beams = self.settings.beams
        scores = np.array([0.0] + [NEVER] * (beams - 1), dtype=np.float32)[:, None, None]
        none = self.emit.constant(np.zeros((beams, 0), dtype=np.int64), "nothing_written")
        marks = self.emit.constant(np.full(beams, NOT, dtype=np.float32), "no_marks")
        return Beams(none, self.emit.constant(scores, "first_scores"), none, marks)

    def _grown(self, one: Round, before: Beams) -> _Grown:
        """Return the beams with a word more."""
        emit, beams = self.emit, self.settings.beams
        shares = self._allowed(emit.node("LogSoftmax", one.logits, role="log_shares", axis=-1), one.number)
        totals = emit.node("Add", shares, before.scores, role="totals")
        flat = emit.node("Reshape", totals, emit.integers([-1], "all"), role="flat_totals")
        best, places = self._top(flat, self.wanted, "best")
        words = self._weighed()
        parents = emit.node("Div", places, words, role="parents")
        tokens = self._word_at(emit.node("Mod", places, words, role="places"), "tokens")
        stops = emit.node("Gather", self._words(self.settings.end, within=True), tokens, role="stops")
        column = emit.node("Unsqueeze", tokens, emit.integers([1], "axis"), role="column")
        said = emit.node("Gather", before.written, parents, role="said", axis=0)
        texts = emit.node("Concat", said, column, role="texts", axis=1)  # (wanted, time + 1)
        length = self._length(emit.node("Add", one.number, self._number(1, "one"), role="done"))
        ended, marks = self._ended(before, texts, self._over(best, length, "each"), stops)
        left = emit.node("Where", stops, self._constant(NOT, "not"), best, role="left")
        scores, going = self._top(left, beams, "going")
        running = Beams(
            emit.node("Gather", texts, going, role="running", axis=0),
            emit.node("Unsqueeze", scores, emit.integers([1, 2], "axes"), role="scores"),
            ended,
            marks,
        )
        follow = emit.node("Gather", column, going, role="follow", axis=0)
        order = emit.node("Gather", parents, going, role="order", axis=0)
        return _Grown(running, follow, order, self._is_going(scores, marks, length))

    def _finished(self, last: Beams) -> tuple[Value, Value]:
        """Return the best texts (beams, time), padded behind their end, and their scores (beams,).

        What runs at the end counts as it stands: with no room left it is a text, and where a search ends before, none
        of it is better than what ended; but a search that stops at enough texts does not look.
        """
        emit = self.emit
        done = emit.node("Squeeze", emit.node("Shape", last.written, role="time", start=1, end=2), role="rounds")
        flat = emit.node("Squeeze", last.scores, emit.integers([1, 2], "axes"), role="last_scores")
        marks = self._over(flat, self._length(done), "last")
        if self.settings.ending is Ending.FULL:
            full = emit.node("Equal", done, self.room, role="full")
            marks = emit.node("Where", full, marks, self._constant(NOT, "not"), role="last_marks")
        every = emit.node("Concat", last.marks, marks, role="every_mark", axis=0)
        scores, chosen = self._top(every, self.settings.beams, "final")
        texts = emit.node("Concat", last.ended, last.written, role="every_text", axis=0)
        return emit.node("Gather", texts, chosen, role="final_texts", axis=0), scores

    def _ended(self, before: Beams, texts: Value, marks: Value, stops: Value) -> tuple[Value, Value]:
        """Return the texts that ended, a word longer, and their scores: of the best candidates as many as there are
        beams may be among them.
        """
        emit, beams = self.emit, self.settings.beams
        among = emit.constant(np.arange(self.wanted) < beams, "among_best")
        new = emit.node("And", stops, among, role="ends")
        offered = emit.node("Where", new, marks, self._constant(NOT, "not"), role="offered")
        every = emit.node("Concat", before.marks, offered, role="every_offer", axis=0)
        best, chosen = self._top(every, beams, "ended")
        padding = emit.constant(np.full((beams, 1), self.pad, dtype=np.int64), "padding")
        longer = emit.node("Concat", before.ended, padding, role="longer", axis=1)
        pool = emit.node("Concat", longer, texts, role="pool", axis=0)
        return emit.node("Gather", pool, chosen, role="ended", axis=0), best

    def _is_going(self, scores: Value, marks: Value, length: Value | None) -> Value:
        """Return whether what runs can, and is allowed to, become one of the texts."""
        emit, how = self.emit, self.settings
        worst = emit.node("Gather", marks, self._number(how.beams - 1, "last_beam"), role="worst")
        if how.ending is Ending.FULL:
            return emit.node("Equal", worst, self._constant(NOT, "not"), role="going")
        first = emit.node("Gather", scores, self._number(0, "zero"), role="first")
        if how.ending is Ending.NEVER and how.length_penalty > 0:
            length = self._length(self.room)
        return emit.node("Greater", self._over(first, length, "first"), worst, role="going")

    def _allowed(self, scores: Value, number: Value) -> Value:
        """Return scores (rows, 1, words) of a round with what may not be written at minus infinity, as
        `token_scores.allowed`.
        """
        emit, how = self.emit, self.settings
        if how.min_tokens and how.end:
            early = emit.node("Less", number, self._number(how.min_tokens, "min_tokens"), role="early")
            rows = (self._without((*how.banned, *how.end), "ends"), self._without(how.banned, "banned"))
            scores = emit.node("Add", scores, emit.node("Where", early, *rows, role="left_out"), role="allowed")
        elif how.banned:
            scores = emit.node("Add", scores, self._without(how.banned, "banned"), role="allowed")
        if how.forced_first is not None:
            begins = emit.node("Equal", number, self._number(0, "zero"), role="begins")
            scores = self._forced(scores, begins, how.forced_first, "first")
        if how.forced_last is not None:
            last = emit.node("Sub", self.room, self._number(1, "one"), role="last_round")
            is_last = emit.node("Equal", number, last, role="is_last")
            scores = self._forced(scores, is_last, how.forced_last, "last")
        return emit.node("LogSoftmax", scores, role="renormalized", axis=-1) if how.renormalize else scores

    def _length(self, count: Value) -> Value | None:
        """Return what a score is divided by where so many words were written, as Python computes it; None for one."""
        penalty = self.settings.length_penalty
        if penalty == 0:
            return None
        if penalty == 1:
            return self.emit.node("Cast", count, role="length", to=TensorProto.FLOAT)
        exact = self.emit.node("Cast", count, role="exact_count", to=TensorProto.DOUBLE)
        power = self.emit.node("Pow", exact, self._constant(np.float64(penalty), "penalty"), role="exact_length")
        return self.emit.node("Cast", power, role="length", to=TensorProto.FLOAT)

    def _over(self, scores: Value, length: Value | None, role: str) -> Value:
        return scores if length is None else self.emit.node("Div", scores, length, role=f"{role}_by_length")

    def _forced(self, scores: Value, now: Value, token: int, role: str) -> Value:
        """Return the scores, or where it is time those of one token alone."""
        alone = np.full(self.words, NOT, dtype=np.float32)
        alone[token] = 0
        forced = self._of_listed(self.emit.constant(alone, f"forced_{role}"), f"forced_{role}")
        return self.emit.node("Where", now, forced, scores, role=f"with_{role}")

    def _without(self, tokens: tuple[int, ...], role: str) -> Value:
        """Return what is added to scores so that tokens are not written, (words,), or of those that are listed."""
        row = np.zeros(self.words, dtype=np.float32)
        row[list(tokens)] = NOT
        return self._of_listed(self.emit.constant(row, f"without_{role}"), f"without_{role}")

    def _words(self, tokens: tuple[int, ...], *, within: bool) -> Value:
        """Return for every word whether it is one of these tokens, or none of them, (words,)."""
        row = np.full(self.words, not within)
        row[list(tokens)] = within
        return self.emit.constant(row, "ends" if within else "goes_on")

    def _weighed(self) -> Value:
        """Return how many words have a score."""
        if self.listed is None:
            return self._number(self.words, "words")
        return self.emit.node("Squeeze", self.emit.node("Shape", self.listed, role="count"), role="listed_count")

    def _word_at(self, places: Value, role: str) -> Value:
        """Return the words whose scores stand at these places."""
        return places if self.listed is None else self.emit.node("Gather", self.listed, places, role=role)

    def _of_listed(self, row: Value, role: str) -> Value:
        """Return of a number for every word (words,) those of the words that have a score."""
        return row if self.listed is None else self.emit.node("Gather", row, self.listed, role=f"{role}_listed")

    def _top(self, scores: Value, count: int, role: str) -> tuple[Value, Value]:
        """Return the largest of scores (size,) and their places, the largest first, and of equal ones the earlier."""
        number = self.emit.integers([count], f"{role}_count")
        best, places = self.emit.nodes("TopK", scores, number, roles=(f"{role}_scores", f"{role}_places"), axis=0)
        return best, places

    def _number(self, value: int, role: str) -> Value:
        return self._constant(np.int64(value), role)

    def _constant(self, value: np.generic, role: str) -> Value:
        return self.emit.constant(np.array(value), role)
