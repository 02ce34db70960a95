"""From a network that writes to one ONNX model that writes whole texts, for devices that cannot call a step themselves.

An encoder, and the keys and values of its states, stand before a loop of the standard's. A round of the loop is the
step of a writer, and the choice of words of `models.generation` and `models.beams`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
import torch

from export.caches import IDS, MASK, MOST, SCORES, SEQUENCES, LayerPorts, cache_ports
from export.chosen_words import Choice, Round
from export.emit import Emit
from export.listed_words import listed_words
from export.lower_writing import encoded_states, lower_tokens
from export.lowering import GROUPS, LOWERINGS
from export.reach import Given, Reach
from export.shortlist import Shortlist
from export.step import Kept, remembered
from export.target import Target
from export.values import Carried, Port, Value, build
from models.block import Block
from models.errors import Unsupported
from models.generation import check_ends, check_words, starts
from models.generation_settings import Generation
from models.network import Network

PART = "search"


def lower_search(
    network: Network, settings: Generation, target: Target, shortlist: Shortlist | None = None
) -> onnx.ModelProto:
    """Return the checked ONNX model that writes behind one source, `input_ids` (1, source) with its `attention_mask`,
    or without an encoder behind a prompt, `input_ids` (1, prompt): `sequences` (beams, time), the best first, with the
    token that ends a text and padding behind it. Of several beams it gives the `scores` (beams,) too.

    All else is fixed as the settings say, but for `max_tokens`, an input that has their number by default. With a
    `shortlist` only the words that it has for the source are written, and have a share.

    Raises:
        Unsupported: a module has no ONNX form, the network writes nothing, or a setting is for no graph.
        BadInput: the settings, or the shortlist, are not for this network.
    """
    check_search(network, settings)
    if shortlist is not None:
        shortlist.check(network.shape, settings)
    emit = Emit(target, LOWERINGS, GROUPS)
    most = Value(Port(MOST, "int64", (), default=settings.max_tokens))
    with torch.no_grad():
        if network.decoder is None:
            ids = Value(Port(IDS, "int64", (1, "prompt")))
            inputs, begun = [ids, most], _after_prompt(network, ids)
        else:
            ids, mask = (Value(Port(name, "int64", (1, "source"))) for name in (IDS, MASK))
            inputs, begun = [ids, mask, most], _behind(network, emit, ids, mask, settings)
        search, shape, words = emit.at(PART), network.shape, network.shape.written_words
        listed = None if shortlist is None else listed_words(search, shortlist, ids, words=words)
        one = _round_of(network, emit, begun, listed)
        room = _room(network, search, ids, most)
        choice = Choice(search, settings, words=words, pad=shape.pad_token_id, room=room, listed=listed)
        found = choice.greedy(one) if settings.beams == 1 else choice.searched(one)
    ports = (Port(SEQUENCES, "int64", (settings.beams, "time")), Port(SCORES, "float32", (settings.beams,)))
    return build(
        inputs, dict(zip(ports, found, strict=False)), opset=target.opset, name=f"{network.shape.family}-search"
    )


def check_search(network: Network, settings: Generation) -> None:
    """Raise as `lower_search` where a network writes nothing, or not by these settings, or no graph does."""
    shape = network.shape
    if not shape.writing_layers:
        raise Unsupported("the model has no layer that writes", where=f"a {shape.family} model")
    refused = {
        "do_sample": settings.sampling is not None,
        "no_repeat_ngram_size": settings.no_repeat > 0,
        "repetition_penalty": settings.repetition_penalty != 1.0,
    }
    if any(refused.values()):
        raise Unsupported(
            f"a search in the graph with {', '.join(name for name, asked in refused.items() if asked)}",
            where="generation_config.json",
            fix="Take it out of the file, or leave the search to the device (export.search: host).",
        )
    check_ends(settings)
    check_words(shape.written_words, settings)
    if shape.decoder is not None:
        starts(settings, 1)


class _Begun(NamedTuple):
    """What the first round is given, `tokens` (rows, new), and what every round reads of an encoder: for each layer
    keys and values, and their `mask` (rows, source).
    """

    tokens: Value
    rows: int | str
    mask: Value | None
    memories: list[Kept | None]


def _after_prompt(network: Network, ids: Value) -> _Begun:
    """Return what begins with a prompt, which is read once, for all beams."""
    return _Begun(ids, "rows", None, [None] * len(network.layers))


def _behind(network: Network, emit: Emit, ids: Value, mask: Value, settings: Generation) -> _Begun:
    """Return what begins behind an encoder, the same for every beam."""
    assert network.decoder is not None
    states, beams = encoded_states(network, emit, mask, ids), settings.beams
    memories: list[Kept | None] = []
    for index, block in enumerate(network.decoder.layers):
        assert isinstance(block, Block)
        part, memory = emit.at(f"decoder.layers.{index}.cross"), None
        if block.cross is not None and block.cross.heads:
            each = zip(("key", "value"), remembered(block.cross, part, states), strict=True)
            memory = Kept(*(_for_each(part, kept, (beams, 1, 1, 1), name) for name, kept in each))
        memories.append(memory)
    search = emit.at(PART)
    start = search.constant(np.full((beams, 1), starts(settings, 1)[0][0], dtype=np.int64), "start")
    return _Begun(start, beams, _for_each(search, mask, (beams, 1), "mask"), memories)


def _for_each(emit: Emit, value: Value, rows: tuple[int, ...], role: str) -> Value:
    """Return the one row of a value for every beam."""
    return value if rows[0] == 1 else emit.node("Expand", value, emit.integers(rows, "rows"), role=f"{role}_for_each")


def _round_of(network: Network, emit: Emit, begun: _Begun, listed: Value | None) -> Round:
    """Return a round of the loop up to the logits (rows, 1, words), of all words or those that are listed."""
    number, search, behind = Value(Port("round", "int64", ())), emit.at(PART), network.decoder is not None
    tokens = Value(Port("tokens", "int64", (begun.rows, 1 if behind else "new")))
    layers = cache_ports(network.shape)
    past = [_past(index, ports, begun.rows) for index, ports in enumerate(layers)]
    # Behind an encoder one token is new, whose place is the round's number; of a prompt the last has logits alone.
    places = search.node("Unsqueeze", number, search.integers([0, 1], "axes"), role="places") if behind else None
    kept = None if behind else search.constant(np.array(1, dtype=np.int64), "one")
    time = search.node("Shape", past[0].key, role="time", start=2, end=3)
    asked = Given(tokens, time, source_mask=begun.mask, places=places)
    reach = Reach(network.shape, search, asked, alone=behind)
    read = list(zip(past, begun.memories, strict=True))
    logits, steps = lower_tokens(network, emit, tokens, reach, read, kept, listed)
    caches = []
    for ports, given, step in zip(layers, past, steps, strict=True):
        axes = (begun.rows if isinstance(begun.rows, int) else 1, ports.key.heads, 0, ports.key.head_size)
        nothing = search.constant(np.zeros(axes, dtype=np.float32), "nothing_kept")
        caches += [Carried(nothing, *both) for both in zip(given, step.own, strict=True)]
    return Round(number, begun.rows, begun.tokens, tokens, logits, caches)


def _past(layer: int, ports: LayerPorts, rows: int | str) -> Kept:
    """Return what a round is given of a layer's keys and values."""
    axes = (rows, ports.key.heads, "past", ports.key.head_size)
    return Kept(*(Value(Port(f"past_{layer}_{name}", "float32", axes)) for name in ("key", "value")))


def _room(network: Network, emit: Emit, ids: Value, most: Value) -> Value:
    """Return how many words may be written."""
    longest = emit.constant(np.array(network.shape.usable_positions, dtype=np.int64), "positions")
    before = emit.constant(np.array(1, dtype=np.int64), "one")
    if network.decoder is None:
        before = emit.node("Squeeze", emit.node("Shape", ids, role="prompt", start=1, end=2), role="prompt_length")
    return emit.node("Min", most, emit.node("Sub", longest, before, role="left"), role="room")
