"""What the teacher writes, to be learnt in place of what was expected: sequence-level distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.checkpoint import Checkpoint
from models.content import Rows, Sourced
from models.encoded import Encoded
from models.errors import BadFile, BadInput
from models.evaluation import BEHIND, written_tokens
from models.files import digest_of
from models.kept import Notes, kept
from models.memory import give_back
from models.progress import Progress, silent
from models.token_cache import mapped
from teacher_student.compute import Compute
from teacher_student.teacher_cache import weights_digest

FORMAT = 1
PART = 1024  # rows that are kept together: what a kill costs at most
TOKENS = "tokens.npy"


def written_by(
    teacher: Checkpoint, data: Encoded, *, cache: Path, compute: Compute | None = None, progress: Progress = silent
) -> Encoded:
    """Return the rows with what the teacher writes behind each source in place of what was expected, in memory (Kim and
    Rush 2016, section 3.2). It writes as its settings say, by beams where they name some.

    What is written is kept in `cache` part by part, so that a run that was killed goes on where it was.

    Raises:
        BadInput: the teacher does not write behind a source, or nothing says how it writes or which token ends a text.
    """
    generation = teacher.generation
    if teacher.shape.decoder is None or generation is None or not generation.end:
        raise BadInput(
            "the teacher writes no texts that could be learnt", where="distill.sequence", fix="Leave it out."
        )
    compute = compute or Compute.best()
    told = [FORMAT, weights_digest(teacher), data.digest, generation.to_json()]
    network = None
    tick = progress("teacher texts")
    parts: list[npt.NDArray[np.int32]] = []
    for start in range(0, len(data), PART):
        rows = np.arange(start, min(start + PART, len(data)))
        place = cache / f"written-by-{digest_of([*told, start])[:24]}"

        def write(directory: Path, rows: Rows = rows) -> Notes:
            nonlocal network
            if network is None:
                network = teacher.network().to(torch.device(compute.device))
            np.save(directory / TOKENS, written_tokens(network, _some(data, rows), generation), allow_pickle=False)
            return {"format": FORMAT, "rows": len(rows)}

        def read(notes: Notes, place: Path = place, count: int = len(rows)) -> npt.NDArray[np.int32]:
            tokens = mapped(place / TOKENS)
            if notes.get("format") != FORMAT or tokens.ndim != 2 or len(tokens) != count:
                raise BadFile("not what a teacher wrote for these rows", where=str(place))
            return np.array(tokens, dtype=np.int32)

        parts.append(kept(place, files=[TOKENS], write=write, read=read))
        tick(start + len(rows), len(data))
    give_back()
    texts = [[*line[line != BEHIND].tolist(), generation.end[0]] for part in parts for line in part]
    return _expecting(data, texts, start=generation.start, digest=digest_of(told))


def _some(data: Encoded, rows: Rows) -> Encoded:
    """Return the sources of these rows; nothing else of them is read."""
    content = data.written
    lengths = content.read_lengths[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    first, last = int(content.starts[rows[0]]), int(content.starts[rows[-1] + 1])
    source = replace(content.source, ids=content.source.ids[first:last], second=content.source.second[rows])
    offsets = np.arange(len(rows) + 1, dtype=np.int64)
    none = np.zeros(len(rows), dtype=np.int32)
    return Encoded(Sourced(none, source, starts, content.tokenizing), offsets, np.stack([none, none], axis=1), 0, "")


def _expecting(data: Encoded, texts: Sequence[Sequence[int]], *, start: int | None, digest: str) -> Encoded:
    """Return the rows with other texts to be written."""
    assert start is not None
    labels = np.array([token for text in texts for token in text], dtype=np.int32)
    offsets = np.cumsum([0, *(len(text) for text in texts)]).astype(np.int64)
    ids = np.concatenate([[start], labels[:-1]]).astype(np.int32)
    ids[offsets[:-1]] = start
    return replace(
        data,
        content=replace(data.written, ids=ids),
        offsets=offsets,
        targets=np.stack([labels, np.ones_like(labels)], axis=1),
        digest=digest,
    )
