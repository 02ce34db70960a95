"""What a teacher writes, kept part by part and learnt in place of what was expected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.examples import tiny_tokenizing
from support.writers import writer

from models.checkpoint import Checkpoint
from models.data import Table
from models.encoded import Encoded
from models.encoding import encode
from models.errors import BadInput
from models.evaluation import BEHIND, written_tokens
from models.targets import TextTargets
from teacher_student import sequence
from teacher_student.compute import Compute
from teacher_student.sequence import written_by

SOURCES = ["w3 w4", "w5", "w6 w7 w8 w9", "w5 w5", "w9 w3 w4"]
PLAIN = Compute(device="cpu", bf16=False)


def taught(folder: Path) -> tuple[Checkpoint, Encoded]:
    writer("marian").save_pretrained(folder / "model")
    tiny_tokenizing().save(folder / "model")
    teacher = Checkpoint.load(folder / "model")
    assert teacher.generation is not None
    teacher = replace(teacher, generation=replace(teacher.generation, max_tokens=6, beams=2))
    table = Table(SOURCES, None, None, "rows", "0")
    targets = TextTargets(["w3"] * len(SOURCES))
    data = encode(table, teacher.reader, targets, max_length=9, cache=folder, generation=teacher.generation)
    return teacher, data


def test_a_student_is_taught_what_the_teacher_writes(tmp_path: Path) -> None:
    teacher, data = taught(tmp_path)
    assert teacher.generation is not None
    found = written_by(teacher, data, cache=tmp_path, compute=PLAIN)
    wanted = written_tokens(teacher.network(), data, teacher.generation)
    batch = found.batch(np.arange(len(SOURCES)))
    for row, line in enumerate(wanted):
        text = [*line[line != BEHIND].tolist(), teacher.generation.end[0]]
        assert batch.targets[row, : len(text), 0].tolist() == text
        assert batch.inputs["decoder_input_ids"][row, : len(text)].tolist() == [teacher.generation.start, *text[:-1]]
    same = data.batch(np.arange(len(SOURCES))).inputs["input_ids"]
    assert batch.inputs["input_ids"].tolist() == same.tolist()
    assert found.labelled.all() and found.digest != data.digest


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, data = taught(tmp_path)
    whole = written_by(teacher, data, cache=tmp_path / "whole", compute=PLAIN)
    monkeypatch.setattr(sequence, "PART", 2)
    calls = []

    def counted(*given, **options):
        calls.append(len(given[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return written_tokens(*given, **options)

    monkeypatch.setattr(sequence, "written_tokens", counted)
    with pytest.raises(KeyboardInterrupt):
        written_by(teacher, data, cache=tmp_path / "parts", compute=PLAIN)
    again = written_by(teacher, data, cache=tmp_path / "parts", compute=PLAIN)
    assert calls == [2, 2, 1, 1]
    assert written_by(teacher, data, cache=tmp_path / "parts", compute=PLAIN).digest == again.digest == whole.digest
    assert len(calls) == 4
    np.testing.assert_array_equal(again.targets, whole.targets)
    np.testing.assert_array_equal(again.offsets, whole.offsets)


def test_a_teacher_that_writes_no_end_teaches_no_texts(tmp_path: Path) -> None:
    teacher, data = taught(tmp_path)
    with pytest.raises(BadInput, match="writes no texts that could be learnt"):
        written_by(replace(teacher, generation=None), data, cache=tmp_path, compute=PLAIN)
