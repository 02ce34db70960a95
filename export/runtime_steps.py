"""Steps of writing by ONNX Runtime, with caches that stay where they are: the second provider of `Steps`. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.bound import Bound, Buffers, Room
from export.caches import CACHED, ENCODED, IDS, KEPT, LOGITS, MASK, PLACES, SOURCE_MASK, STATES, CachePort, cache_ports
from export.session import open_session
from models.errors import BadInput
from models.generation import Prompts, check_sources
from models.shape import ModelShape
from models.token_scores import Ids, Scores

Array = NDArray[Any]
NOTHING_CACHED, SOME_CACHED, LAST = np.array([False]), np.array([True]), np.array(1)  # always bound to the same place


@final
@dataclass(frozen=True, slots=True)
class WriterSessions:
    """What a model that writes runs in: the graph of a step, and that of the encoder where there is one."""

    shape: ModelShape
    writer: onnxruntime.InferenceSession
    encoder: onnxruntime.InferenceSession | None = None


def writer_sessions(
    shape: ModelShape, writer: Path | bytes, encoder: Path | bytes | None, *, threads: int
) -> WriterSessions:
    """Return the sessions of a model of this shape, opened.

    Raises:
        BadFile: the runtime does not read a file.
    """
    reads = None if encoder is None else open_session(encoder, threads=threads)
    return WriterSessions(shape, open_session(writer, threads=threads), reads)


@final
class RuntimeSteps:
    """One batch of texts being written by emitted graphs.

    Keys and values of what was written lie in two buffers that take turns: a step reads one and writes the other, one
    token longer, and where beams change places the rows are copied on the way. Those of an encoder's states are written
    once, and stay. In dynamic int8 the ranges of activations are those of all rows together.

    Arguments and errors are those of `NativeSteps`. Logits are those of the last call: the next one writes over them.
    """

    def __init__(self, sessions: WriterSessions, sources: Prompts | None = None) -> None:
        shape = sessions.shape
        if (sources is None) != (shape.decoder is None):
            needs = "goes on from a prompt, and reads no source" if sources is not None else "needs a source to read"
            raise BadInput(f"the model {needs}", where=f"a {shape.family} model")
        self._sessions, self._shape = sessions, shape
        layers = cache_ports(shape)
        self._own = [(port, Room()) for layer in layers for port in (layer.key, layer.value)]
        self._cross = [(port, Room()) for layer in layers for port in layer[2:] if port is not None]
        self._buffers = Buffers()
        self._bound: dict[tuple[str, ...], Bound] = {}  # by what is wanted
        self._time = 0  # tokens in the caches, padding included
        self._lengths = np.zeros(0, dtype=np.int64)  # tokens of each row, padding left out
        self._mask = np.zeros((0, 0), dtype=np.int64)  # of what is read: a source, or all that was written
        self._texts = np.zeros(0, dtype=np.int64)  # which source each row reads
        self._states: Array = np.zeros((0, 0, shape.hidden_size), dtype=np.float32)
        if sources is not None and sessions.encoder is not None:
            check_sources(sources, longest=shape.usable_positions, words=shape.vocab_size)
            ids, self._mask = self._padded(sources, shape.vocab_size)
            (states,) = sessions.encoder.run([ENCODED], {IDS: ids, MASK: self._mask})
            self._states = np.asarray(states)

    @property
    def positions(self) -> int:
        """Return how many tokens a text may have, the prompt or start included."""
        return self._shape.usable_positions

    def begin(self, prompts: Prompts) -> Scores:
        """Return logits (texts, words) of the word behind each prompt.

        Raises:
            BadInput: as `NativeSteps.begin` raises.
        """
        words = self._shape.written_words
        check_sources(prompts, longest=self.positions, words=words)
        ids, mask = self._padded(prompts, words)
        rows = len(prompts)
        self._texts = np.arange(rows)
        if self._shape.decoder is not None:
            if rows != len(self._states) or not mask.all():
                raise BadInput(f"{rows} starts for {len(self._states)} sources, or of several lengths")
            return self._step(ids, np.zeros_like(ids), first=True)[:, -1]
        if mask.all():
            self._mask = mask
            return self._step(ids, mask.cumsum(axis=1) - 1, first=True)[:, -1]
        if ids.shape[1] > 1:  # the last tokens apart, as they stand at different places
            before = mask.copy()
            before[np.arange(rows), mask.sum(axis=1) - 1] = 0
            self._mask = before[:, :-1]
            places = (self._mask.cumsum(axis=1) - 1).clip(0)
            self._step(ids[:, :-1], places, first=True, kept=0)
        last = mask.sum(axis=1) - 1
        return self._written(ids[np.arange(rows), last], last)

    def read(self, prompt: Sequence[int]) -> Scores:
        """Return logits (tokens, words) of the word behind each token of a prompt, all at once.

        Raises:
            BadInput: as `begin` raises, or the model needs a source to read.
        """
        if self._shape.decoder is not None:
            raise BadInput("what is written behind a source is not read alone", where=f"a {self._shape.family} model")
        check_sources([prompt], longest=self.positions, words=self._shape.written_words)
        ids, self._mask = self._padded([prompt], self._shape.written_words)
        self._texts = np.arange(1)
        logits: Scores = self._step(ids, np.arange(len(prompt))[None], first=True, kept=len(prompt))[0]
        return logits

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        """Return logits (rows, words) of the word behind each of `tokens` (rows,), which continue the rows `order`
        (rows,) of the call before.
        """
        self._reorder(order)
        return self._written(tokens, self._lengths)

    def _written(self, tokens: Ids, places: Ids) -> Scores:
        """Return logits behind one token more of each row, at `places` (rows,)."""
        if self._shape.decoder is None:
            rows = np.ones((len(tokens), 1), dtype=np.int64)
            self._mask = rows if not self._time else np.concatenate([self._mask, rows], axis=1)
        return self._step(tokens[:, None], places[:, None], first=not self._time)[:, -1]

    def _step(self, ids: Array, places: Array, *, first: bool, kept: int = 1) -> Scores:
        """Return logits (rows, kept, words) of the last of new tokens `ids` (rows, new), and keep what the next step
        needs.
        """
        rows, new = ids.shape
        given: dict[str, Array] = {IDS: ids, PLACES: places, MASK: self._mask, SOURCE_MASK: self._mask}
        # Later steps read the keys and values of these states instead.
        given[STATES] = self._states if first else np.zeros((rows, 0, self._shape.hidden_size), dtype=np.float32)
        given |= {CACHED: NOTHING_CACHED if first else SOME_CACHED, KEPT: LAST if kept <= 1 else np.array(kept)}
        wanted: dict[str, Array] = {}
        if kept:
            wanted[LOGITS] = self._buffers.take(LOGITS, (rows, kept, self._shape.written_words))
        for port, room in self._own:
            given[port.past] = room.now(self._axes(port, rows, self._time))
            wanted[port.present] = room.other(self._axes(port, rows, self._time + new))
        for port, room in self._cross:
            if first:
                given[port.past] = np.zeros(self._axes(port, rows, 0), dtype=np.float32)
                wanted[port.present] = room.other(self._axes(port, rows, self._states.shape[1]))
            else:
                given[port.past] = room.now(self._axes(port, rows, self._mask.shape[1]))
        names = tuple(wanted)
        if names not in self._bound:
            self._bound[names] = Bound(self._sessions.writer)
        self._bound[names].run(given, wanted)
        for _, room in (*self._own, *(self._cross if first else ())):
            room.turn()
        self._time += new
        self._states = self._states[:, :0]
        self._lengths = places[:, -1] + 1 if kept else places.max(axis=1) + 1
        return wanted[LOGITS] if kept else np.zeros((rows, 0, self._shape.written_words), dtype=np.float32)

    def _axes(self, port: CachePort, rows: int, time: int) -> tuple[int, ...]:
        return (rows, port.heads, time, port.head_size)

    def _reorder(self, order: Ids) -> None:
        """Put the rows `order` of the caches where the next step reads."""
        rows = len(self._lengths)
        if np.array_equal(order, np.arange(rows)):
            return
        for port, room in self._own:
            room.taken(order, self._axes(port, rows, self._time))
        texts = self._texts[order]
        if self._shape.decoder is None or not np.array_equal(texts, self._texts):  # beams of a text read one source
            for port, room in self._cross:
                room.taken(order, self._axes(port, rows, self._mask.shape[1]))
            self._mask = self._mask[order]
        self._texts, self._lengths = texts, self._lengths[order]

    def _padded(self, texts: Prompts, words: int) -> tuple[Array, Array]:
        """Return token numbers (texts, time) padded on the right, and their mask."""
        lengths = np.array([len(text) for text in texts])
        padding = min(self._shape.pad_token_id, words - 1)  # whatever is there is read by nobody
        ids = np.full((len(texts), int(lengths.max())), padding, dtype=np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        return ids, (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
