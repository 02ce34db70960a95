"""Writing with a bundle: texts in, texts out, or a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from export.bundle import Bundle
from export.graph_search import FIX, GraphSearch
from export.runtime_steps import RuntimeSteps, WriterSessions
from models.errors import BadInput
from models.generation import generate, starts, stream
from models.generation_settings import Generation
from models.tokenizing import Tokenizing

UNCUT: Final = 1 << 24  # tokens: a text that is too long is refused, not cut


@final
@dataclass(frozen=True)
class Generator:
    """A model that writes, ready to run. Needs ONNX Runtime and tokenizers, not PyTorch.

    Behind an encoder it reads a text and writes its answer; without one it goes on from a text, and what it gives is
    what comes behind that. `settings` are those the model came with; a call may have its own, or where the search is in
    the graph another `max_tokens`.
    """

    sessions: WriterSessions | GraphSearch
    tokenizing: Tokenizing
    settings: Generation

    @staticmethod
    def open(directory: Path, *, threads: int = 1) -> Generator:
        """Return the generator of a bundle.

        Raises:
            BadFile: there is no valid bundle, or a file that it needs is missing.
            BadInput: its model writes nothing.
        """
        bundle = Bundle.open(directory)
        sessions = bundle.search(threads=threads) if bundle.searches else bundle.writer(threads=threads)
        return Generator(sessions, bundle.tokenizing, bundle.generation)

    def write(
        self, texts: Sequence[str], settings: Generation | None = None, *, seed: int = 0, batch: int = 1
    ) -> list[str]:
        """Return what is written for each text, `batch` of them at once.

        One at a time a text does not depend on those beside it; in dynamic int8 it does where there are several.

        Raises:
            BadInput: a text is empty or too long, or the settings are not for this model.
        """
        how = self._checked(settings)
        ids = self._read(texts)
        if isinstance(self.sessions, GraphSearch):
            best = [self.sessions.write(one, max_tokens=how.max_tokens)[0] for one in ids]
            return [self._said(one, text.tokens) for one, text in zip(ids, best, strict=True)]
        written: list[str] = []
        for start in range(0, len(ids), batch):
            some = ids[start : start + batch]
            steps, prompts = self._begun(self.sessions, some, how)
            found = generate(steps, prompts, how, seed=seed + start)
            written += [self._said(prompt, best[0].tokens) for prompt, best in zip(prompts, found, strict=True)]
        return written

    def stream(self, text: str, settings: Generation | None = None, *, seed: int = 0) -> Iterator[str]:
        """Yield the pieces of what is written for a text as soon as they are known. Whoever stops reading stops the
        writing.

        Raises:
            BadInput: as `write` raises, or for several beams, of which none is known before the end.
        """
        how = self._checked(settings)
        if isinstance(self.sessions, GraphSearch):
            raise BadInput("the search is in the graph, which gives whole texts", where="stream", fix=FIX)
        steps, prompts = self._begun(self.sessions, self._read([text]), how)
        spell = self.tokenizing.speller(prompts[0] if self.sessions.shape.decoder is None else ())
        for (token,) in stream(steps, prompts, how, seed=seed):
            piece = "" if token is None or token in how.end else spell(token)
            if piece:
                yield piece

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        if self.sessions.shape.decoder is not None:  # what goes on from nothing may write
            for number, text in enumerate(texts, start=1):
                if not text.strip():  # an end alone would be answered too, with whatever comes first
                    raise BadInput(f"text {number} is empty", where="source", fix="There must be something to read.")
        return [encoding.ids for encoding in self.tokenizing.encode(texts, max_length=UNCUT)]

    def _begun(
        self, sessions: WriterSessions, ids: list[list[int]], settings: Generation
    ) -> tuple[RuntimeSteps, list[list[int]]]:
        if sessions.encoder is None:
            return RuntimeSteps(sessions), ids
        return RuntimeSteps(sessions, ids), starts(settings, len(ids))

    def _said(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        if self.sessions.shape.decoder is not None:
            return self.tokenizing.decoded([tokens])[0]
        # A tokenizer may leave out the blank before the first word of a text, which here stands behind others.
        before = self.tokenizing.decoded([prompt])[0]
        return self.tokenizing.decoded([[*prompt, *tokens]])[0][len(before) :]

    def _checked(self, settings: Generation | None) -> Generation:
        how = self.settings if settings is None else _completed(settings, self.settings)
        beyond = [token for token in how.end if token > self.tokenizing.highest_id]
        if beyond:
            raise BadInput(f"the tokenizer has no token {beyond[0]}, which would end a text", where="generation")
        if isinstance(self.sessions, GraphSearch):
            self.sessions.check(how)
        return how


def _completed(settings: Generation, own: Generation) -> Generation:
    """Return settings with the tokens that a model begins and ends with where they name none."""
    return replace(settings, start=own.start if settings.start is None else settings.start, end=settings.end or own.end)
