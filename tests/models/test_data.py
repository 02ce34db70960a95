from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.columns import Wanted
from models.data import Table, read_table, read_words
from models.errors import BadFile, BadInput
from models.labels import class_targets, label_names

SST2 = Path(__file__).parents[2].parent / "shared" / "data" / "sst2"
ROWS = [("good film", 1), ('a "quoted" one', 0), ("NA", 1), ("", 0), ("naïve 東京", 1)]


def _write(path: Path, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def _parquet(path: Path, columns: dict[str, Any]) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return _write(path, sink.getvalue().to_pybytes())


def _rows(path: Path) -> str:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        return _parquet(path, {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    if kind == "tsv":
        return _write(path, "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))
    if kind == "csv":
        lines = "".join('"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in ROWS)
        return _write(path, "\ufefftext,label\r\n" + lines)
    return _write(path, "".join(json.dumps({"text": text, "label": label}) + "\n\n" for text, label in ROWS))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "ndjson", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str, ending: str) -> None:
    table = read_table(_rows(tmp_path / f"data.{kind}{ending}"))
    assert table.texts == [text for text, _ in ROWS]
    assert table.labels == [label for _, label in ROWS]
    assert table.pairs is None
    assert len(table) == len(ROWS)


def test_endings_are_read_whatever_their_case(tmp_path: Path) -> None:
    assert len(read_table(_rows(tmp_path / "data.tsv"))) == len(ROWS)
    assert read_table(_write(tmp_path / "DATA.CSV", "text\na\n")).texts == ["a"]


def test_csv_cells_may_hold_line_ends(tmp_path: Path) -> None:
    assert read_table(_write(tmp_path / "a.csv", 'text,label\n"two\nlines",x\nb,y\n')).texts == ["two\nlines", "b"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Sentence,LABEL,idx", ("Sentence", None, "LABEL")),
        ("idx,question1,question2,label", ("question1", "question2", "label")),
        ("premise,hypothesis,label,text", ("premise", "hypothesis", "label")),
        ("text,pair,label", ("text", "pair", "label")),
        ("label,text,text_pair", ("text", "text_pair", "label")),
        ("intent,utterance,other", ("utterance", None, "intent")),
        ("content,foo", ("content", None, None)),
        ("title,text", ("text", None, None)),
    ],
)
def test_columns_are_found_by_name(tmp_path: Path, header: str, expected: tuple[str | None, ...]) -> None:
    names = header.split(",")
    table = read_table(_write(tmp_path / "a.csv", f"{header}\n{','.join('is-' + name for name in names)}\n"))
    text, pair, label = (None if name is None else [f"is-{name}"] for name in expected)
    assert (table.texts, table.pairs, table.labels) == (text, pair, label)


def test_columns_told_by_flag_win(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.csv", "text,other,third,label,gold\na,b,c,d,e\n")
    table = read_table(Wanted(source, "other", "Third", "gold"))
    assert (table.texts, table.pairs, table.labels) == (["b"], ["c"], ["e"])
    assert read_table(Wanted(source, text="label")).labels is None


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ("1 0 2", [1, 0, 2]),
        ("1.5 0.25 3.0", [1.5, 0.25, 3.0]),
        ("1.5 4 -2", [1.5, 4, -2]),
        ("1.5 04 -2", ["1.5", "04", "-2"]),
        ("1.0 0.0 2.0", [1, 0, 2]),
        ("a b c", ["a", "b", "c"]),
        ("1 b 2", ["1", "b", "2"]),
        ("007 1 2", ["007", "1", "2"]),
        ("-1 -1 -1", None),
        ("nan inf NA", ["nan", "inf", "NA"]),
    ],
)
def test_labels_keep_what_they_are(tmp_path: Path, values: str, labels: list[Any] | None) -> None:
    lines = "".join(f"text\t{value}\n" for value in values.split())
    assert read_table(_write(tmp_path / "a.tsv", f"text\tlabel\n{lines}")).labels == labels


def test_labels_of_typed_columns(tmp_path: Path) -> None:
    def labels(values: Any) -> Any:
        return read_table(_parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": values})).labels

    assert labels([True, False]) == [1, 0]
    assert labels([1.0, 2.0]) == [1, 2]
    assert labels([None, None]) is None
    assert labels(pa.array(["x", "y"]).dictionary_encode()) == ["x", "y"]
    with pytest.raises(BadInput, match=r"column 'label' holds list<.*>, which is no label"):
        labels([[1], [2]])


def test_the_digest_depends_on_bytes_and_columns_not_on_the_place(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    content = "text,review,label\na,b,c\nd,e,f\n"
    one = read_table(_write(tmp_path / "a.csv", content))
    assert read_table(_write(tmp_path / "b" / "c.csv", content)).digest == one.digest
    assert read_table(Wanted(one.source, text="review")).digest != one.digest
    assert read_table(_write(tmp_path / "d.csv", content.replace("d", "x"))).digest != one.digest
    assert one.first(1).digest != one.digest
    assert one.first(1).texts == ["a"]
    assert one.first(1).labels == ["c"]
    assert one.first(2) is one


def _problem(kind: type[BadInput | BadFile], source: str, **told: str) -> str:
    with pytest.raises(kind) as caught:
        read_table(Wanted(source, **told))
    assert caught.value.where == source
    return str(caught.value)


def test_a_missing_file_is_named_and_the_nearest_shown(tmp_path: Path) -> None:
    _write(tmp_path / "train.tsv", "text\na\n")
    assert "there is no such file" in _problem(BadInput, str(tmp_path / "trian.tsv"))
    assert "Did you mean 'train.tsv'?" in _problem(BadInput, str(tmp_path / "trian.tsv"))
    assert "is not there either" in _problem(BadInput, str(tmp_path / "nowhere" / "train.tsv"))
    assert "there is no such file" in _problem(BadInput, "train.tsv.gz")
    assert "there is no such file" in _problem(BadInput, "./train")
    assert "there is no such file" in _problem(BadInput, "a/b/c")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.gz", "jsonl.gz", "parquet.gz"])
def test_an_empty_file_is_a_bad_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"")
    assert "the file is empty" in _problem(BadFile, str(path))
    if ending.endswith(".gz"):
        assert "not readable as" in _problem(BadFile, _write(path, b""))


def test_a_header_alone_is_no_data(tmp_path: Path) -> None:
    assert "there are no rows" in _problem(BadFile, _write(tmp_path / "a.tsv", "text\tlabel\n"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", b"text\tlabel\na\t1\textra\n", "tab-separated.*Expected 2 columns, got 3"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "comma-separated.*UTF"),
        ("a.csv", b"\xff\xfet\x00e\x00x\x00t\x00\n", "comma-separated|no text column"),
        ("a.jsonl", b'{"text": "a"}\n{"text":', "JSON Lines"),
        ("a.jsonl", b'[{"text": "a"}]', "JSON Lines"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n', "changed from number to string"),
        ("a.parquet", b"PAR1 and no more", "Parquet"),
        ("a.tsv.gz", None, "tab-separated.*(header|truncated)"),
    ],
)
def test_broken_files_are_bad_files(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"text\tlabel\n" if content is None else content)
    with pytest.raises((BadFile, BadInput), match=said) as caught:
        read_table(str(path))
    assert caught.value.where == str(path)


def test_a_truncated_gz_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"text\tlabel\n" + b"word\t1\n" * 9_999)[:-20])
    assert "not readable as tab-separated" in _problem(BadFile, str(path))


def test_folders_and_unknown_formats_are_refused(tmp_path: Path) -> None:
    assert "this is a folder" in _problem(BadInput, str(tmp_path))
    problem = _problem(BadInput, _write(tmp_path / "a.xlsx", "x"))
    assert "the format '.xlsx' is not known" in problem
    assert ".iob2, each also with .gz" in problem


def test_columns_that_are_not_there_are_named_with_the_nearest(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.csv", "sentense,labell\na,b\n")
    assert "no text column found among the columns sentense, labell" in _problem(BadInput, source)
    problem = _problem(BadInput, source, text="sentence")
    assert "there is no column 'sentence'" in problem
    assert "Did you mean 'sentense'?" in problem
    assert "there is no column 'label'" in _problem(BadInput, source, text="sentense", label="label")
    tabs = _write(tmp_path / "b.csv", "text\tlabel\na\tb\n")
    assert "call it .tsv" in _problem(BadInput, tabs)


def test_a_column_is_not_read_twice(tmp_path: Path) -> None:
    assert "column 'text' is there, or asked for, twice" in _problem(
        BadInput, _write(tmp_path / "a.csv", "text,text,label\na,b,c\n")
    )
    source = _write(tmp_path / "b.csv", "text,label\na,b\n")
    assert "twice" in _problem(BadInput, source, text="text", pair="text")


def test_rows_without_text_or_label_are_numbered(tmp_path: Path) -> None:
    source = _write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": null, "label": 2}\n')
    assert "row 2 has no text in the column 'text'" in _problem(BadInput, source)
    source = _write(tmp_path / "b.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n')
    assert "row 2 has no label in the column 'label'" in _problem(BadInput, source)
    source = _write(tmp_path / "c.csv", "text,label\na,x\nb,y\nc,\n")
    assert "row 3 has no label" in _problem(BadInput, source)
    source = _parquet(tmp_path / "d.parquet", {"text": [1, 2]})
    assert "the column 'text' holds int64, not text" in _problem(BadInput, source)


def _table(labels: list[Any] | None) -> Table:
    return Table(["text"] * (3 if labels is None else len(labels)), None, labels, "here.csv", "digest")


@pytest.mark.parametrize(
    ("labels", "names", "targets"),
    [
        ([0, 1, 1], ("negative", "positive"), [0, 1, 1]),
        (["positive", "negative"], ("negative", "positive"), [1, 0]),
        ([5, 10], ("10", "5"), [1, 0]),
        ([1, 0], ("LABEL_0", "LABEL_1"), [1, 0]),
        (["1", "b"], ("1", "b"), [0, 1]),
        ([1], ("b", "1"), [1]),
        (None, ("a", "b"), [-1, -1, -1]),
    ],
)
def test_labels_become_class_numbers(labels: list[Any] | None, names: tuple[str, ...], targets: list[int]) -> None:
    assert class_targets(_table(labels), names) == targets


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([0, 2], ("negative", "positive"), r"row 2 has the label 2, which .* Known labels: negative, positive\."),
        ([0, -1], ("negative", "positive"), "row 2 has the label -1"),
        (
            ["positive", "Negativ"],
            ("negative", "positive"),
            r"row 2 has the label 'Negativ'.*Did you mean 'negative'\?",
        ),
        ([0], ("5", "10"), "row 1 has the label 0"),
        ([0.5], ("a", "b"), "row 1 has the label 0.5"),
        (["x"], tuple(f"class-{number}" for number in range(50)), "class-19 and 30 more"),
    ],
)
def test_unknown_labels_are_named(labels: list[Any], names: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        class_targets(_table(labels), names)
    assert caught.value.where == "here.csv"


def test_label_names_are_sorted_as_numbers_or_words() -> None:
    assert label_names(_table([10, 9, 9, 0])) == ("0", "9", "10")
    assert label_names(_table(["b", "a", "b"])) == ("a", "b")
    for labels, said in ((None, "no label column"), (["a", "a"], "same label 'a'"), ([0.5, 1.5], "fractions")):
        with pytest.raises(BadInput, match=said):
            label_names(_table(labels))


def test_a_hub_name_is_read_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    data = datasets.Dataset.from_dict({"sentence": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    asked: list[Any] = []

    def load(name: str, configuration: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, configuration, split))
        return data.select([2, 0])

    monkeypatch.setattr(datasets, "load_dataset", load)
    table = read_table("org/name:part", split="validation")
    assert (table.texts, table.labels) == (["c", "a"], ["good", "good"])
    read_table("name")
    assert asked == [("org/name", "part", "validation"), ("name", None, "train")]


@pytest.mark.parametrize("error", [ConnectionError("no network"), ValueError("Unknown split"), FileNotFoundError()])
def test_a_hub_name_that_fails_is_bad_input(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(*told: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    problem = _problem(BadInput, "org/name")
    assert "neither a file here nor a data set that the hub gives with a split 'train'" in problem


def test_reading_a_table_loads_neither_torch_nor_datasets(tmp_path: Path) -> None:
    source = _rows(tmp_path / "a.tsv")
    code = (
        f"import sys; from models.data import read_table; read_table({source!r});"
        "sys.exit(','.join({'torch', 'datasets', 'tokenizers'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


@pytest.mark.real
@pytest.mark.skipif(not SST2.is_dir(), reason="no public data sets beside the checkout")
def test_sst2_is_read_as_it_is() -> None:
    table = read_table(str(SST2 / "dev.tsv.gz"))
    assert len(table) == 872
    assert table.texts[0] == "it 's a charming and often affecting journey . "
    assert table.labels is not None
    assert (table.labels.count(1), table.labels.count(0)) == (444, 428)
    assert len(read_table(str(SST2 / "train_fit.tsv.gz"))) == 60_276


CONLL = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP I-NP I-PER\n"


@pytest.mark.parametrize("ending", [".conll", ".bio", ".iob2", ".conll.gz"])
def test_words_and_tags_of_conll(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(gzip.compress(CONLL.encode()) if ending.endswith("gz") else CONLL.encode())
    table = read_words(Wanted(str(path)))
    assert table.texts == ["EU rejects", "Peter"]
    assert table.labels == [("I-ORG", "O"), ("I-PER",)]
    assert read_words(Wanted(_write(tmp_path / f"bare{ending[:6]}", "one\ntwo\n"))).labels is None


def test_words_and_tags_in_columns(tmp_path: Path) -> None:
    rows = [{"words": ["a b", " ", "c"], "ner_tags": ["O", "B-x", "O"]}, {"words": [], "ner_tags": []}]
    table = read_words(Wanted(_write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))))
    assert table.texts == ["ab ? c", ""]
    assert table.labels == [("O", "B-x", "O"), ()]
    other = _parquet(tmp_path / "a.parquet", {"tokens": [["a"], ["b"]], "kind": [["B-x"], ["O"]]})
    assert read_words(Wanted(other, label="kind")).labels == [("B-x",), ("O",)]
    assert read_words(Wanted(other)).labels is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "row 1 has 2 words and 1 tags"),
        ('{"tokens": "a b", "tags": ["O", "O"]}', "the column 'tokens' holds string, not a list for each row"),
        (
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": null, "tags": ["O"]}',
            "row 2 has no list in the column 'tokens'",
        ),
    ],
)
def test_words_that_are_no_lists_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_words(Wanted(_write(tmp_path / "a.jsonl", rows)))


def test_several_labels_are_lists_or_text_with_bars(tmp_path: Path) -> None:
    lists = _write(tmp_path / "a.jsonl", '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}')
    bars = _write(tmp_path / "a.csv", "text,label\na,x|y\nb,\n")
    for source in (lists, bars):
        assert read_table(source, several=True).labels == [("x", "y"), ()]
    with pytest.raises(BadInput, match="not lists of labels or text with a bar"):
        read_table(_write(tmp_path / "b.jsonl", '{"text": "a", "label": 1}'), several=True)
