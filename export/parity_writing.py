"""The native network that writes against its emitted graphs, token by token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import torch

from export.graph_search import GraphSearch
from export.parity import Bound, Parity
from export.runtime_steps import RuntimeSteps, WriterSessions
from export.session import Arrays, Floats
from export.shortlist import ListedSteps, Shortlist
from models.errors import BadInput, Mismatch
from models.generation import Steps, generate, starts
from models.network import Network

SHOWN: Final = 8  # logits of the worst token
# A word has a logit of its own among thousands, and int8 rounds every product on the way to it.
FLOAT_WORDS_BOUND: Final = Bound(max_abs=1e-3, p95_abs=1e-3, same_top=0.995)
INT8_WORDS_BOUND: Final = Bound(max_abs=float("inf"), p95_abs=0.5, same_top=0.98)
SAME_TEXTS: Final = 0.95  # the runtime fuses both graphs its own way; in int8 a rounding may then fall the other way


def words_bound(network: Network) -> Bound:
    """Return the bound that an export of this network must keep, over written tokens."""
    return INT8_WORDS_BOUND if network.shape.int8 else FLOAT_WORDS_BOUND


def compare_writing(network: Network, sessions: WriterSessions, batches: Iterable[Arrays]) -> Parity:
    """Return how far the graphs are from `network` on texts that are known, each a batch of one: `input_ids` and behind
    an encoder `decoder_input_ids`. The tokens are given to both one step after another.

    Raises:
        BadInput: there is no example.
    """
    network.eval()
    gaps, same, worst = list[float](), list[bool](), None
    for batch in batches:
        native, runtime = _native(network, batch), _runtime(sessions, batch)
        apart = np.abs(native.astype(np.float64) - runtime).max(axis=1)
        apart = np.where(np.isnan(apart), np.inf, apart)
        if worst is None or apart.max() > max(gaps):
            token = int(apart.argmax())
            worst = (len(gaps) + token, native[token, :SHOWN], runtime[token, :SHOWN])
        gaps += apart.tolist()
        same += (native.argmax(axis=1) == runtime.argmax(axis=1)).tolist()
    if worst is None:
        raise BadInput("parity needs at least one example")
    return Parity(
        examples=len(gaps),
        max_abs=max(gaps),
        p95_abs=float(np.quantile(gaps, 0.95, method="higher")),
        same_top=float(np.mean(same)),
        worst=worst[0],
        worst_native=tuple(float(value) for value in worst[1]),
        worst_runtime=tuple(float(value) for value in worst[2]),
    )


class Shortened(NamedTuple):
    """What a shortlist does to so many `texts`: how many words are `listed` for one, which share is `covered` of the
    words that are written without it, and which share of texts is `unchanged` by it.
    """

    texts: int
    listed: float
    covered: float
    unchanged: float


def same_texts(
    search: GraphSearch, sessions: WriterSessions, batches: Iterable[Arrays], shortlist: Shortlist | None = None
) -> float:
    """Return the share of texts, each a batch of one, behind which a graph that searches finds what is found by steps
    of the graphs that `compare_writing` compares, where only words of the `shortlist`, if there is one, have a share.

    Raises:
        BadInput: there is no example.
        Mismatch: it is too small.
    """
    same, how = list[bool](), search.settings
    for batch in batches:
        read = batch["input_ids"][0].tolist()
        behind = sessions.encoder is not None
        steps: Steps = RuntimeSteps(sessions, [read] if behind else None)
        if shortlist is not None:
            steps = ListedSteps(steps, [shortlist.words_for(read)])
        if not behind:
            read = read[: (len(read) + 1) // 2]  # it goes on from there
        (best, *_), *_ = generate(steps, starts(how, 1) if behind else [read], how)
        same.append(search.write(read, max_tokens=how.max_tokens)[0].tokens == best.tokens)
    if not same:
        raise BadInput("parity needs at least one example")
    share = float(np.mean(same))
    if share < SAME_TEXTS:
        raise Mismatch(
            f"{share:.1%} of texts are the same, wanted {SAME_TEXTS:.0%}",
            where=f"the search in the graph and by steps on {len(same)} examples",
        )
    return share


def shortened(
    search: GraphSearch, sessions: WriterSessions, batches: Iterable[Arrays], shortlist: Shortlist
) -> Shortened:
    """Return what the shortlist of a graph that searches does to texts, each behind a source that is a batch of one.

    Raises:
        BadInput: there is no example.
    """
    how, listed, covered, same = search.settings, list[int](), list[bool](), list[bool]()
    for batch in batches:
        read = batch["input_ids"][0].tolist()
        (best, *_), *_ = generate(RuntimeSteps(sessions, [read]), starts(how, 1), how)
        words = shortlist.words_for(read)
        listed.append(len(words))
        covered += np.isin(best.tokens, words).tolist()
        same.append(search.write(read, max_tokens=how.max_tokens)[0].tokens == best.tokens)
    if not same:
        raise BadInput("a shortlist is tried on at least one example")
    share = float(np.mean(covered)) if covered else 1.0
    return Shortened(len(same), float(np.mean(listed)), share, float(np.mean(same)))


def _native(network: Network, batch: Arrays) -> Floats:
    """Return the network's logits behind every token (tokens, words), one step after another."""
    behind = network.decoder is not None
    read, written = (torch.from_numpy(np.asarray(batch[name])) for name in ("input_ids", _tokens(batch)))
    with torch.inference_mode():
        states = network.encode(read) if behind else None
        logits, cache = list[torch.Tensor](), None
        for place in range(written.shape[1]):
            some, cache = network.decode(written[:, place : place + 1], states, None, cache)
            logits.append(some[0, 0])
    return torch.stack(logits).numpy()


def _runtime(sessions: WriterSessions, batch: Arrays) -> Floats:
    """Return what the graphs give for the same steps."""
    read, written = batch["input_ids"][0].tolist(), batch[_tokens(batch)][0].tolist()
    steps = RuntimeSteps(sessions, None if sessions.encoder is None else [read])
    logits = [steps.begin([written[:1]])[0].copy()]
    for token in written[1:]:
        logits.append(steps.advance(np.array([token], dtype=np.int64), np.zeros(1, dtype=np.int64))[0].copy())
    return np.stack(logits)


def _tokens(batch: Arrays) -> str:
    return "decoder_input_ids" if "decoder_input_ids" in batch else "input_ids"
