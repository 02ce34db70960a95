"""A shortlist of the words that may be written for a source, made of what was written for others."""

from __future__ import annotations

import numpy as np

from compress.lexicon import Lexicon, fitted_lexicon
from compress.settings import ShortlistSettings
from export.shortlist import Shortlist
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput
from models.token_scores import Ids

WHERE = "export.shortlist"


def shortlist_of(parent: Checkpoint, data: Encoded, settings: ShortlistSettings, *, seed: int) -> Shortlist:
    """Return the shortlist of a model that writes behind a source, by rows of what is read and written.

    The words that are written most often may be written always, and so may those that the model's settings of writing
    name. The others of a token are those that the lexicon has for it most often. What is read may be copied, where it
    has the numbers of what is written.

    Raises:
        BadInput: the model reads no source, or nothing says what is written.
    """
    shape, how = parent.shape, parent.generation
    if shape.decoder is None or how is None:
        raise BadInput("a model that reads no source has none to list words for", where=WHERE, fix="Leave it out.")
    written = data.targets[:, 0][data.targets[:, 0] >= 0]
    if not len(written):
        raise BadInput(
            "nothing says what is written for the training texts",
            where=WHERE,
            fix="Give texts with their translations or summaries: --train FILE.",
        )
    often = np.bincount(written, minlength=shape.written_words)
    order = np.argsort(-often, kind="stable")[: settings.first]
    named = [*how.end, *(token for token in (how.forced_first, how.forced_last) if token is not None)]
    always = np.union1d(order[often[order] > 0], named).astype(np.int64)
    lexicon = fitted_lexicon(data, tokens=max(shape.vocab_size, shape.written_words), seed=seed)
    rows, behind = _table(lexicon, always, tokens=shape.vocab_size, most=settings.words)
    return Shortlist(always, rows, behind, copies=shape.decoder.vocab_size is None)


def _table(lexicon: Lexicon, always: Ids, *, tokens: int, most: int) -> tuple[Ids, Ids]:
    """Return which row each token has, and the rows (rows, most): the first is of those of which nothing is known."""
    others = ~np.isin(lexicon.written, always)
    read, written, counts = (part[others] for part in lexicon)
    order = np.lexsort((written, -counts, read))
    read, written = read[order], written[order]
    seen, first, row = np.unique(read, return_index=True, return_inverse=True)
    rank = np.arange(len(read)) - first[row]
    kept = rank < most
    behind = np.full((len(seen) + 1, most), always[0], dtype=np.int64)
    behind[row[kept] + 1, rank[kept]] = written[kept]
    rows = np.zeros(tokens, dtype=np.int64)
    rows[seen] = np.arange(1, len(seen) + 1)
    return rows, behind
