"""Emitted graphs that write, run in pieces by hand, beside the network in the same pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from export.caches import CACHED, ENCODED, IDS, LOGITS, MASK, PLACES, SOURCE_MASK, STATES, cache_ports
from export.lower_writing import lower_encoder, lower_writer
from export.session import open_session
from export.target import CPU, Target
from models.network import Network
from models.shape import ModelShape

Arrays = dict[str, Any]


class Graphs:
    """The graphs of a network that writes, loaded."""

    def __init__(self, network: Network, target: Target = CPU) -> None:
        self.shape = network.shape
        self.encoder = None if network.decoder is None else _opened(lower_encoder(network, target))
        self.writer = _opened(lower_writer(network, target))

    def stepped(self, batch: dict[str, Tensor], pieces: list[int]) -> tuple[Any, Arrays]:
        """Return the logits (batch, all, words) of a batch written in pieces of these lengths, and the last caches."""
        behind = self.encoder is not None
        ids = batch["decoder_input_ids" if behind else "input_ids"].numpy()
        mask = batch["attention_mask"].numpy()
        past = empty_past(self.shape, len(ids))
        states = self.encoded(batch)
        logits, done = [], 0
        for piece in pieces:
            new = ids[:, done : done + piece]
            known: Arrays = {IDS: new, **past}
            if behind:
                known |= {STATES: states, SOURCE_MASK: mask, CACHED: np.array([done > 0])}
            else:
                seen = mask[:, : done + piece]
                known |= {MASK: seen, PLACES: (seen.cumsum(axis=1) - 1).clip(0)[:, done:]}
            found = self.run(known)
            logits.append(found[LOGITS])
            past = carried(self.shape, past, found, first=not done)
            done += piece
        return np.concatenate(logits, axis=1), past

    def encoded(self, batch: dict[str, Tensor]) -> Any:
        """Return the encoder's states, if there is one."""
        if self.encoder is None:
            return None
        given = {IDS: batch["input_ids"].numpy(), MASK: batch["attention_mask"].numpy()}
        return self.encoder.run([ENCODED], given)[0]

    def run(self, known: Arrays) -> Arrays:
        """Return all outputs by name."""
        ports = {port.name for port in self.writer.get_inputs()}
        names = [port.name for port in self.writer.get_outputs()]
        return dict(zip(names, self.writer.run(names, {n: v for n, v in known.items() if n in ports}), strict=True))


def empty_past(shape: ModelShape, rows: int) -> Arrays:
    """Return caches of nothing written."""
    ports = [port for layer in cache_ports(shape) for port in layer if port is not None]
    return {port.past: np.zeros((rows, port.heads, 0, port.head_size), np.float32) for port in ports}


def carried(shape: ModelShape, past: Arrays, found: Arrays, *, first: bool) -> Arrays:
    """Return what the next step is given: an encoder's keys and values are those of the first step."""
    ports = [port for layer in cache_ports(shape) for port in layer if port is not None]
    return {port.past: past[port.past] if port.cross and not first else found[port.present] for port in ports}


def native(network: Network, batch: dict[str, Tensor], pieces: list[int]) -> Tensor:
    """Return the network's logits in the same pieces."""
    behind = network.decoder is not None
    ids, mask = batch["decoder_input_ids" if behind else "input_ids"], batch["attention_mask"]
    with torch.inference_mode():
        states = network.encode(batch["input_ids"], mask) if behind else None
        logits, cache, done = list[Tensor](), None, 0
        for piece in pieces:
            seen = mask if behind else mask[:, : done + piece]
            some, cache = network.decode(ids[:, done : done + piece], None if done else states, seen, cache)
            logits.append(some)
            done += piece
    return torch.cat(logits, dim=1)


def _opened(model: Any) -> onnxruntime.InferenceSession:
    return open_session(model.SerializeToString(), threads=1)
