"""What a network answers to every row of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from models.encoded import Encoded, equal_lengths
from models.errors import BadInput
from models.generation import Prompts, Steps, generate, starts
from models.generation_settings import Generation
from models.memory import give_back
from models.native_steps import NativeSteps
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape
from models.targets import Writes

TEXTS_PER_BATCH = 128  # written together
BEHIND = -1  # stands behind the end of what was written
TOKENS_PER_BATCH = 4096  # enough to fill the cores; the widest activation then stays under 100 MB


def unpadded_batches(
    lengths: npt.NDArray[np.int64], *, batch_tokens: int, likeness: npt.NDArray[np.int64] | None = None
) -> list[npt.NDArray[np.int64]]:
    """Return every row number once, in batches of rows of one exact length and at most `batch_tokens` tokens; with
    `likeness` of rows that are alike in it.

    Without padding every example is computed as it would be alone, int8 activation scales included.
    """
    batches: list[npt.NDArray[np.int64]] = []
    for rows in equal_lengths(lengths if likeness is None else likeness, batch_size=max(1, batch_tokens)):
        size = max(1, batch_tokens // max(1, int(lengths[rows[0]])))
        batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    return batches


def answer_offsets(data: Encoded, shape: ModelShape) -> npt.NDArray[np.int64]:
    """Return (rows + 1,) where the answers to each row start: as many a row as the shape says, or one a token."""
    each = shape.answers
    return np.asarray(data.offsets) if each is None else np.arange(len(data) + 1, dtype=np.int64) * each


def place_answers(
    answers: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
) -> None:
    """Write the logits of rows of one length, (rows, labels) or (rows, answers, labels), where `offsets` says."""
    each = logits.reshape(len(rows), -1, logits.shape[-1])
    answers[offsets[rows][:, None] + np.arange(each.shape[1])] = each


def evaluate_logits(
    network: Network, data: Encoded, *, batch_tokens: int = TOKENS_PER_BATCH, progress: Progress = silent
) -> npt.NDArray[np.float32]:
    """Return float32 logits (answers, labels) in the order of the rows, computed in evaluation mode and full precision.

    There is one answer for each row, several where the head has several, or one for each token where it answers tokens.
    The network is used where it is (on its own device) and given back in the mode it came in.
    """
    device = next(network.buffers(), next(network.parameters(), torch.empty(0))).device
    tick = progress("evaluate")
    offsets = answer_offsets(data, network.shape)
    outputs: npt.NDArray[np.float32] | None = None
    training = network.training
    network.eval()
    done = 0
    with torch.inference_mode():
        for rows in unpadded_batches(data.lengths, batch_tokens=batch_tokens, likeness=data.likeness):
            logits = network(**data.batch(rows).to(device).inputs).float().cpu().numpy()
            if outputs is None:
                outputs = np.empty((int(offsets[-1]), logits.shape[-1]), dtype=np.float32)
            place_answers(outputs, logits, rows, offsets)
            done += len(rows)
            tick(done, len(data))
    network.train(training)
    give_back()
    return np.empty((0, network.shape.outputs), dtype=np.float32) if outputs is None else outputs


def outputs_of(
    network: Network, data: Encoded, writes: Writes, *, generation: Generation | None, progress: Progress = silent
) -> npt.NDArray[Any]:
    """Return what a task is judged by that has its model write this: logits as `evaluate_logits`, what each expected
    token costs as `token_costs`, or what is written as `written_tokens`, each in the order of the rows.

    Raises:
        BadInput: nothing says how the model writes.
    """
    if writes is Writes.NOTHING:
        return evaluate_logits(network, data, progress=progress)
    if writes is Writes.ON:
        return token_costs(network, data, progress=progress)
    if generation is None:
        raise BadInput("nothing says how the model writes", where="generation.json")
    return written_tokens(network, data, generation, progress=progress)


def token_costs(network: Network, data: Encoded, *, progress: Progress = silent) -> npt.NDArray[np.float64]:
    """Return float64 (tokens, 1), minus the logarithm of the share that each expected token was given, in the order of
    the rows; computed in evaluation mode, on the network's device.
    """
    device = next(network.parameters()).device
    tick, done, training = progress("evaluate"), 0, network.training
    costs = np.zeros((int(data.offsets[-1]), 1))
    network.eval()
    with torch.inference_mode():
        for rows in unpadded_batches(data.lengths, batch_tokens=TOKENS_PER_BATCH, likeness=data.likeness):
            batch = data.batch(rows).to(device)
            logits, expected = network(**batch.inputs).float().flatten(0, 1), batch.targets[..., 0].flatten()
            each = cross_entropy(logits, expected, reduction="none").view(len(rows), -1)
            costs[data.offsets[rows][:, None] + np.arange(each.shape[1]), 0] = each.double().cpu().numpy()
            done += len(rows)
            tick(done, len(data))
    network.train(training)
    give_back()
    return costs


def written_tokens(
    network: Network, data: Encoded, generation: Generation, *, progress: Progress = silent
) -> npt.NDArray[np.int32]:
    """Return int32 (rows, longest), the best text that the network writes behind each row's source, without what ends
    it; BEHIND stands behind the end. Sources of one length are written for together, so that none is padded.
    """
    training = network.training
    network.eval()
    together = max(1, TEXTS_PER_BATCH // generation.beams)
    written = written_in_steps(partial(NativeSteps, network), data, generation, together=together, progress=progress)
    network.train(training)
    give_back()
    return written


def written_in_steps(
    begun: Callable[[Prompts], Steps],
    data: Encoded,
    generation: Generation,
    *,
    together: int = 1,
    progress: Progress = silent,
) -> npt.NDArray[np.int32]:
    """Return what `written_tokens` returns, of what is `begun` for sources of one length, at most so many `together`.
    Nothing is drawn: a text is the likeliest that is found.
    """
    content, likeliest = data.written, replace(generation, sampling=None)
    texts: list[tuple[int, ...]] = [()] * len(data)
    tick, done = progress("write"), 0
    for rows in equal_lengths(content.read_lengths, batch_size=together):
        steps = begun([content.source_of(int(row)) for row in rows])
        for row, found in zip(rows.tolist(), generate(steps, starts(likeliest, len(rows)), likeliest), strict=True):
            texts[row] = found[0].tokens
        done += len(rows)
        tick(done, len(data))
    return text_rows(texts)


def text_rows(texts: Sequence[Sequence[int]]) -> npt.NDArray[np.int32]:
    """Return texts as int32 (rows, longest), with BEHIND behind the end."""
    written = np.full((len(texts), max((len(text) for text in texts), default=0)), BEHIND, dtype=np.int32)
    for line, text in zip(written, texts, strict=True):
        line[: len(text)] = text
    return written
