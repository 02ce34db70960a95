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
from models.generation_settings import Generation
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


class Searched(NamedTuple):
    """How a graph that searches does beside steps of the graphs that `compare_writing` compares: the share of texts
    behind which both find the same, and what its shortlist does, if it has one.
    """

    same: float
    shortened: Shortened | None


def compare_searches(
    search: GraphSearch, sessions: WriterSessions, batches: Iterable[Arrays], shortlist: Shortlist | None = None
) -> Searched:
    """Compare what is found behind texts, each a batch of one. With a shortlist only its words have a share in the
    steps too, and what it does is told beside steps in which all words have.

    Raises:
        BadInput: there is no example.
        Mismatch: too few texts are the same.
    """
    how, behind = search.settings, sessions.encoder is not None
    same, listed, covered, unchanged = list[bool](), list[int](), list[bool](), list[bool]()
    for batch in batches:
        read = batch["input_ids"][0].tolist()
        if not behind:
            read = read[: (len(read) + 1) // 2]  # it goes on from there
        found = search.write(read, max_tokens=how.max_tokens)[0].tokens
        words = None if shortlist is None else shortlist.words_for(read)
        steps: Steps = RuntimeSteps(sessions, [read] if behind else None)
        wanted = _best(steps if words is None else ListedSteps(steps, [words]), read, how, behind=behind)
        same.append(found == wanted)
        if words is not None:
            free = _best(RuntimeSteps(sessions, [read]), read, how, behind=behind)
            listed.append(len(words))
            covered += np.isin(free, words).tolist()
            unchanged.append(found == free)
    if not same:
        raise BadInput("parity needs at least one example")
    share = float(np.mean(same))
    if share < SAME_TEXTS:
        raise Mismatch(
            f"{share:.1%} of texts are the same, wanted {SAME_TEXTS:.0%}",
            where=f"the search in the graph and by steps on {len(same)} examples",
        )
    if shortlist is None:
        return Searched(share, None)
    known = float(np.mean(covered)) if covered else 1.0
    return Searched(share, Shortened(len(same), float(np.mean(listed)), known, float(np.mean(unchanged))))


def _best(steps: Steps, read: list[int], how: Generation, *, behind: bool) -> tuple[int, ...]:
    """Return the best text behind a source, or a prompt."""
    ((best, *_),) = generate(steps, starts(how, 1) if behind else [read], how)
    return best.tokens


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
