"""What a network answers to every row of a data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from models.encoded import Encoded, equal_lengths
from models.memory import give_back
from models.network import Network
from models.progress import Progress, silent
from models.shape import ModelShape

TOKENS_PER_BATCH = 4096  # enough to fill the cores; the widest activation then stays under 100 MB


def unpadded_batches(lengths: npt.NDArray[np.int64], *, batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Return every row number once, in batches of rows of one exact length and at most `batch_tokens` tokens.

    Without padding every example is computed as it would be alone, int8 activation scales included.
    """
    batches: list[npt.NDArray[np.int64]] = []
    for rows in equal_lengths(lengths, batch_size=max(1, batch_tokens)):
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
        for rows in unpadded_batches(data.lengths, batch_tokens=batch_tokens):
            logits = network(**data.batch(rows).to(device).inputs).float().cpu().numpy()
            if outputs is None:
                outputs = np.empty((int(offsets[-1]), logits.shape[-1]), dtype=np.float32)
            place_answers(outputs, logits, rows, offsets)
            done += len(rows)
            tick(done, len(data))
    network.train(training)
    give_back()
    return np.empty((0, network.shape.outputs), dtype=np.float32) if outputs is None else outputs
