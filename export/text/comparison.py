"""The tokenizer in the graph beside the tokenizer itself: the same tokens of every text, or a refusal that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from export.session import Arrays, open_session, run
from export.text.feeding import texts_to_feed
from export.text.hard_texts import hard_texts
from export.text.ports import TEXT
from models.errors import Mismatch
from models.progress import Progress, silent
from models.tokenizing import Encoding, Tokenizing

Difference = tuple[tuple[str, str | None], npt.NDArray[np.int64], Encoding]
_TOLD = 5
_SHOWN = 12  # tokens of each, from the first that differs
_CUT = 60  # characters of a text


@final
@dataclass(frozen=True, slots=True)
class Compared:
    """How many texts were read alike: difficult ones, and those of the data."""

    hard: int
    own: int


def compare_tokens(
    graph: bytes,
    tokenizing: Tokenizing,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    *,
    positions: int,
    progress: Progress = silent,
) -> Compared:
    """Return on how many texts a graph of `tokens_graph` gives the tokens that the tokenizer does.

    Raises:
        Mismatch: there are texts on which they differ; the first of them are named with both.
    """
    session = open_session(graph, threads=1, texts=True)
    special = [str(token["content"]) for token in json.loads(tokenizing.json).get("added_tokens") or []]
    hard = hard_texts(special)
    # Beside each text stands the one on the other side of the list, longer or shorter.
    firsts, seconds = [*hard, *texts], None if pairs is None else [*reversed(hard), *pairs]
    expected = tokenizing.encode(firsts, seconds, max_length=positions)
    report = progress("compare tokenizers")
    different: list[Difference] = []
    for number, one in enumerate(expected):
        row = (firsts[number], None if seconds is None else seconds[number])
        ids, types = (found[0] for found in session.run(None, texts_to_feed(*row)))
        if ids.tolist() != one.ids or types.tolist() != one.token_type_ids:
            different.append((row, ids, one))
        report(number + 1, len(expected))
    if different:
        told = "".join(f"\n  {line}" for line in _told(different[:_TOLD], tokenizing))
        more = f"\n  and {len(different) - _TOLD} more" if len(different) > _TOLD else ""
        raise Mismatch(
            f"the graph reads {len(different)} of {len(expected)} texts otherwise than the tokenizer{told}{more}\n",
            where="export.text_in",
            fix="Leave text_in out: this tokenizer has no exact form in a graph.",
        )
    return Compared(hard=len(hard), own=len(texts))


def check_answers(with_tokenizer: bytes, plain: bytes, examples: Sequence[Arrays], *, tolerance: float) -> None:
    """Check that a graph gives for texts what the one without a tokenizer gives for their tokens; an example is both.

    Raises:
        Mismatch: for one it gives something else.
    """
    sessions = open_session(plain, threads=1), open_session(with_tokenizer, threads=1, texts=True)
    for example in examples:
        expected, found = (run(session, example) for session in sessions)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=tolerance):
            raise Mismatch(
                f"with its tokenizer in the graph the model gives {found.tolist()}, without {expected.tolist()}",
                where=_short(str(example[TEXT][0])),
            )


def _told(
    different: Sequence[Difference],
    tokenizing: Tokenizing,
) -> Iterator[str]:
    for (text, pair), ids, expected in different:
        same = int(np.cumprod([a == b for a, b in zip(ids.tolist(), expected.ids, strict=False)]).sum())
        shown = slice(max(0, same - 1), same + _SHOWN)
        ours, theirs = (tokenizing.pieces(row[shown]) for row in (ids.tolist(), expected.ids))
        beside = "" if pair is None else f" with {_short(pair)}"
        yield f"{_short(text)}{beside}: {' '.join(ours)} in the graph, {' '.join(theirs)} by the tokenizer"


def _short(text: str) -> str:
    return ascii(text if len(text) <= _CUT else f"{text[:_CUT]}...")
