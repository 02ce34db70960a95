"""What a bundle is judged by: what it answers, writes, or expects of every word, one row at a time as on a device."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle import Bundle
from export.runtime_steps import RuntimeSteps
from models.encoded import Encoded
from models.evaluation import text_rows, written_in_steps
from models.progress import Progress, silent
from models.targets import Writes


def outputs_of(bundle: Bundle, data: Encoded, writes: Writes, *, progress: Progress = silent) -> npt.NDArray[Any]:
    """Return what `models.evaluation.outputs_of` returns of a network: logits, what each expected token costs, or what
    is written.

    Raises:
        BadInput: the model does not write so.
        BadFile: nothing says how it writes, or the runtime does not read its graphs.
    """
    if writes is Writes.NOTHING:
        return bundle.logits(data, progress=progress)
    if writes is Writes.ON:
        return _token_costs(bundle, data, progress)
    if bundle.searches:
        return _found(bundle, data, progress)
    return written_in_steps(partial(RuntimeSteps, bundle.writer()), data, bundle.generation, progress=progress)


def _found(bundle: Bundle, data: Encoded, progress: Progress) -> npt.NDArray[np.int32]:
    """Return int32 (rows, longest), what `models.evaluation.written_in_steps` returns, of a graph that searches."""
    search, tick, texts = bundle.search(), progress("write"), list[tuple[int, ...]]()
    for row in range(len(data)):
        best, *_ = search.write(data.written.source_of(row), max_tokens=search.settings.max_tokens)
        texts.append(best.tokens)
        tick(row + 1, len(data))
    return text_rows(texts)


def _token_costs(bundle: Bundle, data: Encoded, progress: Progress) -> npt.NDArray[np.float64]:
    """Return (tokens, 1), minus the logarithm of the share that each expected token was given."""
    sessions, tick = bundle.writer(), progress("evaluate")
    costs = np.zeros((int(data.offsets[-1]), 1))
    for row in range(len(data)):
        batch = data.batch(np.array([row]))
        logits = RuntimeSteps(sessions).read(batch.inputs["input_ids"][0].tolist()).astype(np.float64)
        expected = batch.targets[0, :, 0].numpy()
        highest = logits.max(axis=1)
        shares = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        costs[data.offsets[row] : data.offsets[row + 1], 0] = shares - logits[np.arange(len(logits)), expected]
        tick(row + 1, len(data))
    return costs
