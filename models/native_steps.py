"""Steps of writing by the network here, with its caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from models.errors import BadInput
from models.generation import Prompts, check_sources
from models.layers.cache import Cache, reordered
from models.network import Network
from models.token_scores import Ids, Scores


@final
class NativeSteps:
    """One batch of texts being written by a network in evaluation mode, on its device.

    Behind an encoder, `sources` are the token numbers of the texts that it reads, encoded at once and padded on the
    right. In dynamic int8 padding widens the ranges of activations: texts of one length are computed as they would be
    alone. Without an encoder there are none, and what is gone on from are the prompts.

    Raises:
        BadInput: the network writes nothing, there are sources and no encoder or the other way round, or a source is
            empty, too long, or not of the vocabulary.
    """

    def __init__(self, network: Network, sources: Prompts | None = None) -> None:
        shape = network.shape
        where = f"a {shape.family} model"
        if shape.output is None:
            raise BadInput("the model writes nothing", where=where)
        if (sources is None) != (shape.decoder is None):
            needs = "goes on from a prompt, and reads no source" if sources is not None else "needs a source to read"
            raise BadInput(f"the model {needs}", where=where)
        self._network = network
        self._device = next(network.parameters()).device
        self._cache: Cache | None = None
        self._mask: Tensor | None = None
        self._states: Tensor | None = None
        if sources is not None:
            check_sources(sources, longest=shape.usable_positions, words=shape.vocab_size)
            ids, self._mask = self._padded(sources, shape.vocab_size)
            with torch.inference_mode():
                self._states = network.encode(ids, self._mask)

    @property
    def positions(self) -> int:
        """Return how many tokens a text may have, the prompt or start included."""
        return self._network.shape.usable_positions

    def begin(self, prompts: Prompts) -> Scores:
        """Return logits (texts, words) of the word behind each prompt.

        Raises:
            BadInput: a prompt is empty, too long or not of the vocabulary; or behind an encoder there are not as many
                as sources, or they differ in length.
        """
        words = self._network.shape.written_words
        check_sources(prompts, longest=self.positions, words=words)
        ids, mask = self._padded(prompts, words)
        if self._states is None:
            self._mask = mask
        elif len(prompts) != len(self._states) or mask is not None:
            raise BadInput(f"{len(prompts)} starts for {len(self._states)} sources, or of several lengths")
        with torch.inference_mode():
            written = self._network.write(ids, self._states, self._mask)
            self._cache, self._states = written.cache, None
            last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self._device)
            hidden = written.states[-1][torch.arange(len(prompts), device=self._device), last]
            return _numbers(self._network.words(hidden))

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        """Return logits (rows, words) of the word behind each of `tokens` (rows,), which continue the rows `order`
        (rows,) of the call before.
        """
        assert self._cache is not None
        with torch.inference_mode():
            rows = torch.from_numpy(order).to(self._device)
            if not np.array_equal(order, np.arange(len(self._cache[0].own.key))):
                self._cache = reordered(self._cache, rows)
                self._mask = None if self._mask is None else self._mask.index_select(0, rows)
            if self._network.decoder is None and self._mask is not None:
                self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
            ids = torch.from_numpy(tokens).to(self._device)[:, None]
            logits, self._cache = self._network.decode(ids, None, self._mask, self._cache)
            return _numbers(logits[:, -1])

    def _padded(self, texts: Sequence[Sequence[int]], words: int) -> tuple[Tensor, Tensor | None]:
        """Return token numbers (texts, time) padded on the right, and their mask where any is padded."""
        lengths = [len(text) for text in texts]
        padding = min(self._network.shape.pad_token_id, words - 1)  # whatever is there is read by nobody
        ids = np.full((len(texts), max(lengths)), padding, dtype=np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        mask = np.arange(ids.shape[1])[None, :] < np.array(lengths)[:, None]
        padded = None if mask.all() else torch.from_numpy(mask.astype(np.int64)).to(self._device)
        return torch.from_numpy(ids).to(self._device), padded


def _numbers(logits: Tensor) -> Scores:
    return logits.float().cpu().numpy()
