"""Texts with what is to be written for them, and running text, from files as they are found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from models.columns import Wanted
from models.errors import BadFile, BadInput
from models.parallel import read_running, read_written


def lines(path: Path, *texts: str) -> str:
    content = "".join(f"{text}\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_two_files_of_lines_are_one_table(gz: str, tmp_path: Path) -> None:
    source = lines(tmp_path / f"train.en{gz}", "a dog", "", "two\u2028cats")
    lines(tmp_path / f"train.de{gz}", "ein Hund", "nichts", "zwei Katzen")
    table = read_written(Wanted(source, text="en", label="de"))
    assert table.texts == ["a dog", "", "two\u2028cats"]
    assert table.labels == [("ein Hund",), ("nichts",), ("zwei Katzen",)]
    assert table.digest == read_written(Wanted(source, label="de")).digest
    assert read_written(Wanted(source)).labels is None
    back = read_written(Wanted(str(tmp_path / f"train.de{gz}"), label="en"))
    assert back.texts[0] == "ein Hund" and back.labels is not None and back.labels[0] == ("a dog",)


def test_files_of_lines_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = lines(tmp_path / "train.en", "a", "b")
    lines(tmp_path / "train.de", "a")
    with pytest.raises(BadInput, match="2 lines, and 1 in train.de"):
        read_written(Wanted(source, label="de"))
    with pytest.raises(BadInput, match="no such file"):
        read_written(Wanted(source, label="fr"))
    with pytest.raises(BadInput, match="a file of en, not of fr"):
        read_written(Wanted(source, text="fr", label="de"))
    (tmp_path / "empty.en").write_text("")
    with pytest.raises(BadFile, match="empty"):
        read_written(Wanted(str(tmp_path / "empty.en")))
    (tmp_path / "broken.en").write_bytes(b"\xff\xfe")
    with pytest.raises(BadFile, match="UTF-8"):
        read_written(Wanted(str(tmp_path / "broken.en")))


def test_lists_are_the_sentences_of_a_text_and_the_texts_that_are_right(tmp_path: Path) -> None:
    rows = [
        {"source": ["One.", "Two."], "target": ["1.", "2."], "id": 1},
        {"source": ["Three."], "target": ["3."], "id": 2},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_written(Wanted(str(path)))
    assert table.texts == ["One. Two.", "Three."]
    assert table.labels == [("1.", "2."), ("3.",)]
    path.write_text(json.dumps({"source": ["a"], "target": []}) + "\n" + json.dumps({"source": ["a"], "target": ["b"]}))
    with pytest.raises(BadInput, match="row 1 has no text in the column 'target'"):
        read_written(Wanted(str(path)))


def test_a_table_has_a_column_for_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("en\tde\n12\t007\nb\tc\n")
    table = read_written(Wanted(str(path), text="en", label="de"))
    assert (table.texts, table.labels) == (["12", "b"], [("007",), ("c",)])  # numbers are texts here
    with pytest.raises(BadInput, match="no source column found among the columns en, de"):
        read_written(Wanted(str(path)))


def test_running_text_is_a_whole_file_or_a_row_for_each_document(tmp_path: Path) -> None:
    whole = read_running(Wanted(lines(tmp_path / "wiki.txt.gz", "one", "", "two")))
    assert whole.texts == ["one\n\ntwo\n"] and whole.labels is None
    (tmp_path / "rows.jsonl").write_text('{"text": "one", "label": 1}\n{"text": "two", "label": 0}\n')
    each = read_running(Wanted(str(tmp_path / "rows.jsonl")))
    assert each.texts == ["one", "two"] and each.labels is None
    with pytest.raises(BadFile, match="no text"):
        read_running(Wanted(lines(tmp_path / "blank.txt", " ", "")))
