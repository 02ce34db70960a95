"""Examples of what a bundle writes, which its graphs must write again anywhere."""

from __future__ import annotations

from typing import Final

import numpy as np

from export.graph_search import GraphSearch
from export.manifest import GOLDEN_FILE, GoldenExample
from export.runtime_steps import RuntimeSteps, WriterSessions
from models.errors import BadFile, BadInput, Mismatch
from models.generation import starts
from models.generation_settings import Generation
from models.token_scores import Scores

GOLDEN_TOKENS: Final = 12


def written_example(sessions: WriterSessions, ids: list[int], settings: Generation) -> GoldenExample:
    """Return the example of a source, or of a text to go on from: the likeliest tokens and their logits.

    Raises:
        Mismatch: a logit is not finite.
    """
    steps, logits = _begun(sessions, ids, settings)
    room = min(GOLDEN_TOKENS, steps.positions - (1 if sessions.encoder is not None else len(ids)))
    written, values = list[int](), list[float]()
    while True:
        if not np.isfinite(logits).all():
            raise Mismatch(f"the model gives logits that are not finite behind {ids[:8]}...", where="golden examples")
        written.append(int(logits[0].argmax()))
        values.append(float(logits[0, written[-1]]))
        if len(written) >= room:
            return GoldenExample(input_ids=ids, written=written, logits=values)
        logits = steps.advance(np.array(written[-1:], dtype=np.int64), np.zeros(1, dtype=np.int64))


def writing_gap(sessions: WriterSessions, example: GoldenExample, settings: Generation) -> float:
    """Return how far the graphs are from an example: the largest difference of a written token's logit, or half of what
    another token has more than it.

    Raises:
        BadFile: the example does not fit the model.
    """
    words = sessions.shape.written_words
    if len(example.written) != len(example.logits) or not all(0 <= token < words for token in example.written):
        raise BadFile("an example's tokens and logits do not fit together or do not fit the model", where=GOLDEN_FILE)
    try:
        steps, logits = _begun(sessions, example.input_ids, settings)
    except BadInput as error:
        raise BadFile(f"an example does not fit the model ({error})", where=GOLDEN_FILE) from None
    worst = 0.0
    for number, (token, expected) in enumerate(zip(example.written, example.logits, strict=True), start=1):
        found = float(logits[0, token])
        gaps = [abs(found - expected), (float(logits[0].max()) - found) / 2]
        worst = max(worst, *(gap if np.isfinite(gap) else float("inf") for gap in gaps))
        if number < len(example.written):
            logits = steps.advance(np.array([token], dtype=np.int64), np.zeros(1, dtype=np.int64))
    return worst


def searched_example(search: GraphSearch, ids: list[int]) -> GoldenExample:
    """Return the example of a source, or of a text to go on from: the best text that the graph finds, and its score
    where it has one.

    Raises:
        Mismatch: a score is not finite.
    """
    # To its end: not every runtime gives an input that has a default.
    texts, scores = search.run(ids, max_tokens=search.settings.max_tokens)
    marks = [] if scores is None else [float(scores[0])]
    if not np.isfinite(marks).all():
        raise Mismatch(f"the model gives a score that is not finite behind {ids[:8]}...", where="golden examples")
    return GoldenExample(input_ids=ids, written=texts[0].tolist(), logits=marks)


def searching_gap(search: GraphSearch, example: GoldenExample) -> float:
    """Return how far the graph is from an example: the difference of the scores, and infinitely far with another text.

    Raises:
        BadFile: the example does not fit the model.
    """
    try:
        found = searched_example(search, example.input_ids)
    except BadInput as error:
        raise BadFile(f"an example does not fit the model ({error})", where=GOLDEN_FILE) from None
    if len(found.logits) != len(example.logits):
        raise BadFile("an example's scores do not fit the model", where=GOLDEN_FILE)
    if found.written != example.written:
        return float("inf")
    return max((abs(one - other) for one, other in zip(found.logits, example.logits, strict=True)), default=0.0)


def _begun(sessions: WriterSessions, ids: list[int], settings: Generation) -> tuple[RuntimeSteps, Scores]:
    if sessions.encoder is None:
        steps = RuntimeSteps(sessions)
        return steps, steps.begin([ids])
    steps = RuntimeSteps(sessions, [ids])
    return steps, steps.begin(starts(settings, 1))
