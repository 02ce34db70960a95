"""What the teacher says about every example, computed once and kept on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.checkpoint import Checkpoint
from models.content import members
from models.encoded import Encoded
from models.errors import BadFile, BadInput
from models.evaluation import TOKENS_PER_BATCH, answer_offsets, place_answers, unpadded_batches
from models.files import digest_of, sha256_bytes
from models.kept import Notes, kept
from models.memory import give_back
from models.network import Features
from models.progress import Progress, silent
from models.shape import ModelShape
from teacher_student.compute import Compute

FORMAT = 1
RECORD = "record.json"
LOGITS = "logits.npy"
HIDDEN_BYTES = 2  # float16
LOGIT_BYTES = 4  # float32
HALF_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """Memory-mapped outputs of a teacher for a data set.

    `logits` is float32 (answers, labels), where row i has the answers starts[i] to starts[i + 1]. `hidden` maps a
    number into `Features.hidden` to the file of a float16 array (tokens of all rows, width), where row i has the tokens
    offsets[i] to offsets[i + 1]. It is mapped anew for every batch: pages of a mapping that stays would count as this
    process's memory, up to the size of the whole file.
    `key` is the digest of everything that the outputs depend on.
    """

    logits: npt.NDArray[np.float32]
    hidden: Mapping[int, Path]
    offsets: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    key: str

    def logits_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (answers, labels) of the rows of these numbers, one after another."""
        return torch.from_numpy(self.logits[members(self.starts, rows.numpy())])

    def hidden_of(self, layer: int, rows: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of these rows one after another, float32 (tokens, width)."""
        table = np.load(self.hidden[layer], mmap_mode="r", allow_pickle=False)
        spans = [table[self.offsets[row] : self.offsets[row + 1]] for row in rows.tolist()]
        return torch.from_numpy(np.concatenate(spans)).float()

    def of_words(self, data: Encoded) -> TeacherOutputs:
        """Return the answers to the first token of every word alone, in memory; `data` is what was read."""
        first = np.asarray(data.targets)[:, 1] == 1
        before = np.concatenate([[0], np.cumsum(first)])
        return replace(self, logits=np.asarray(self.logits)[first], starts=before[self.starts])

    def averaged(self, others: Sequence[TeacherOutputs]) -> TeacherOutputs:
        """Return these outputs with the mean of all logits, in memory; with no others they are returned as they are."""
        if not others:
            return self
        mean = np.stack([self.logits, *(one.logits for one in others)]).mean(axis=0, dtype=np.float32)
        return replace(self, logits=mean, key=digest_of([self.key, *(one.key for one in others)]))


def check_words(data: Encoded, outputs: TeacherOutputs) -> None:
    """Raise BadInput where teacher and student do not read the same words of every row, or other rows."""
    if len(data) != len(outputs.starts) - 1:
        raise BadInput(
            f"the teacher reads {len(outputs.starts) - 1} windows, the student {len(data)}: it has other tokens, "
            "or reads longer texts",
            where="distill",
            fix="Leave the vocabulary and the positions as they are, or trim them without recovery.",
        )
    before = np.concatenate([[0], np.cumsum(np.asarray(data.targets)[:, 1] == 1)])
    other = int((np.diff(before[data.offsets]) != np.diff(outputs.starts)).sum())
    if other:
        raise BadInput(
            f"of {other} texts teacher and student read other words: one of them cuts them short",
            where="distill",
            fix="Lower data.max_length, so that both cut the same texts, or split the long ones.",
        )


def check_width(outputs: TeacherOutputs, student: ModelShape) -> None:
    """Raise BadInput where a student gives embeddings of another width than what its teacher gave."""
    theirs = outputs.logits.shape[1]
    if theirs != student.outputs:
        raise BadInput(
            f"the student's embedding has {student.outputs} numbers and its teacher's {theirs}, which cannot be "
            "compared one by one",
            where="losses.mse",
            fix="Learn from the cosines between texts: losses mse: 0, kl: 1.",
        )


def weights_digest(checkpoint: Checkpoint) -> str:
    """Return the digest of a checkpoint's shape and weights."""
    weights = {
        name: sha256_bytes(value.detach().contiguous().numpy().tobytes()) for name, value in checkpoint.weights.items()
    }
    return digest_of({"shape": checkpoint.shape.to_json(), "weights": weights})


def teacher_outputs(
    teacher: Checkpoint,
    data: Encoded,
    *,
    hidden: Sequence[int] = (),
    cache: Path,
    compute: Compute | None = None,
    progress: Progress = silent,
) -> TeacherOutputs:
    """Return the teacher's outputs for every row of `data`, from `cache` where they are, else computed and kept there.

    `hidden` numbers the hidden states that are kept besides the logits, clipped to the range of float16. The key is
    the digest of the teacher, the data, the layers and the precision. A kept directory that does not match its record
    is thrown away and made again. Memory stays bounded: files are written through memory maps.
    """
    compute = compute or Compute.best()
    layers = sorted(set(hidden))
    key = digest_of(
        {
            "format": FORMAT,
            "teacher": weights_digest(teacher),
            "data": data.digest,
            "hidden": layers,
            "bf16": compute.bf16,
        }
    )
    place = cache / f"teacher-{key[:24]}"

    def write(directory: Path) -> Notes:
        _compute(teacher, data, directory=directory, layers=layers, compute=compute, progress=progress)
        give_back()
        return {"format": FORMAT}

    files = [LOGITS, *(_name(layer) for layer in layers)]

    def read(notes: Notes) -> TeacherOutputs:
        if notes.get("format") != FORMAT:
            raise BadFile("not a record of these teacher outputs", where=str(place / RECORD))
        return _opened(place, teacher, data, layers, key)

    return kept(place, files=files, write=write, read=read, record=RECORD)


def _name(layer: int) -> str:
    return f"hidden-{layer}.npy"


def _opened(place: Path, teacher: Checkpoint, data: Encoded, layers: Sequence[int], key: str) -> TeacherOutputs:
    """Return the outputs kept in `place`; BadFile where they do not fit the data."""
    starts = answer_offsets(data, teacher.shape)
    logits = _mapped(place / LOGITS, np.float32, int(starts[-1]))
    tokens = int(data.offsets[-1])
    for layer in layers:
        _mapped(place / _name(layer), np.float16, tokens)
    hidden = {layer: place / _name(layer) for layer in layers}
    return TeacherOutputs(logits, hidden, np.array(data.offsets), starts, key)


def _mapped(path: Path, kind: type[np.generic], rows: int) -> npt.NDArray[Any]:
    try:
        table: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise BadFile(f"not a whole array ({error})", where=str(path)) from None
    if table.dtype != kind or table.ndim != 2 or len(table) != rows:
        raise BadFile(f"holds {table.dtype} {table.shape}, not {rows} rows of {kind.__name__}", where=str(path))
    return table


def _new_array(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Return a mapped array of zeros in a new file.

    Raises:
        OSError: the disk has no room for all of it.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if sys.platform == "linux":
        # Without this the file takes its space page by page, and a full disk ends the process with a bus error.
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def _compute(
    teacher: Checkpoint, data: Encoded, *, directory: Path, layers: Sequence[int], compute: Compute, progress: Progress
) -> None:
    device = torch.device(compute.device)
    network = teacher.network().to(device)
    width = teacher.shape.hidden_size
    starts = answer_offsets(data, teacher.shape)
    logits = _new_array(directory / LOGITS, np.float32, (int(starts[-1]), teacher.shape.outputs))
    for layer in layers:
        _new_array(directory / _name(layer), np.float16, (int(data.offsets[-1]), width))
    tick = progress("teacher outputs")
    done = 0
    with torch.inference_mode(), compute.autocast():
        for rows in unpadded_batches(data.lengths, batch_tokens=TOKENS_PER_BATCH, likeness=data.likeness):
            inputs = data.batch(rows).to(device).inputs
            seen = network.features(**inputs) if layers else Features(network(**inputs), ())
            place_answers(logits, seen.logits.float().cpu().numpy(), rows, starts)
            for layer in layers:
                table = np.load(directory / _name(layer), mmap_mode="r+", allow_pickle=False)
                states = seen.hidden[layer].float().clamp(-HALF_LIMIT, HALF_LIMIT).half().cpu().numpy()
                for row, state in zip(rows, states, strict=True):
                    table[data.offsets[row] : data.offsets[row + 1]] = state
            done += len(rows)
            tick(done, len(data))
    logits.flush()
