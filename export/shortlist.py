"""Which words may be written behind a source, so that a step need not weigh all there are. numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from models.beams import candidates
from models.errors import BadInput
from models.generation import Prompts, Steps
from models.generation_settings import Generation
from models.shape import ModelShape
from models.token_scores import Ids, Scores

WHERE = "shortlist"


@final
@dataclass(frozen=True, eq=False, slots=True)
class Shortlist:
    """Which words may be written behind a source: those that `always` may (words,), and of each token that is read
    those in its row of `behind` (rows, most). `rows` (tokens,) says which that is; a row with fewer words repeats some
    that always may. Where it `copies`, a token that is read may be written too.
    """

    always: Ids
    rows: Ids
    behind: Ids
    copies: bool

    def words_for(self, source: Sequence[int]) -> Ids:
        """Return the words that may be written behind a source, each once, the lowest first."""
        read = np.asarray(source, dtype=np.int64)
        parts = [self.always, self.behind[self.rows[read]].reshape(-1), *([read] if self.copies else [])]
        return np.unique(np.concatenate(parts)).astype(np.int64)

    def check(self, shape: ModelShape, settings: Generation) -> None:
        """Raise BadInput where it is not for a model of this shape that writes so."""
        words = shape.written_words
        if shape.decoder is None:
            raise BadInput("a model that reads no source has none to list words for", where=WHERE, fix="Leave it out.")
        if self.copies and shape.decoder.vocab_size is not None:
            raise BadInput("what is read has other numbers than what is written, and cannot be copied", where=WHERE)
        within = all(
            held.size == 0 or (held.min() >= 0 and held.max() < most)
            for held, most in ((self.always, words), (self.behind, words), (self.rows, len(self.behind)))
        )
        if len(self.rows) != shape.vocab_size or not within:
            raise BadInput(f"it is for no model that reads {shape.vocab_size} tokens and writes {words}", where=WHERE)
        named = {*settings.end, settings.forced_first, settings.forced_last} - {None}
        missing = sorted(str(token) for token in named if token not in self.always)
        if missing:
            raise BadInput(f"the tokens {', '.join(missing)} must always be in it", where=WHERE)
        least = max(settings.beams, candidates(settings, words) // settings.beams)
        known = len(set(self.always.tolist()) - set(settings.banned))
        if known < least:
            raise BadInput(
                f"{known} words that may always be written are too few to choose {least} from",
                where=WHERE,
                fix="Give it more: export.shortlist.first.",
            )


@final
class ListedSteps:
    """The steps of another provider, in which words that are not in the lists of their texts have no share.

    It is what a graph with a shortlist computes, and as slow as without: the oracle of it.
    """

    def __init__(self, steps: Steps, lists: Sequence[Ids]) -> None:
        self._steps, self._lists = steps, lists
        self._texts = np.arange(len(lists))  # which text each row is of

    @property
    def positions(self) -> int:
        """Return how many tokens a text may have, the start included."""
        return self._steps.positions

    def begin(self, prompts: Prompts) -> Scores:
        """Return logits (texts, words), of the words that are not listed minus infinity."""
        return self._listed(self._steps.begin(prompts))

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        """Return logits (rows, words), as `begin`, of the rows `order` of the call before."""
        self._texts = self._texts[order]
        return self._listed(self._steps.advance(tokens, order))

    def _listed(self, logits: Scores) -> Scores:
        found: npt.NDArray[np.float32] = np.full_like(logits, -np.inf)
        for row, text in enumerate(self._texts.tolist()):
            words = self._lists[text]
            found[row, words] = logits[row, words]
        return found
