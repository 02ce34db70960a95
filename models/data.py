"""From files and hub data sets to rows: texts, perhaps second texts, perhaps labels. Loads no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from models.columns import Columns, Wanted, choose_columns
from models.errors import BadFile, BadInput, nearest
from models.files import digest_of, sha256_file

if TYPE_CHECKING:
    from models.imaging import Image

Label = str | int | float | tuple[Any, ...]

_BLOCK_BYTES = 16 * 1024 * 1024  # a row of CSV or JSON Lines must fit into one block
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?(?::[\w.-]+)?")


@final
@dataclass(frozen=True)
class Table:
    """Rows in their order: `texts`, `pairs` (second texts) and `labels` are equally long where they are there; rows of
    images have no texts.

    `digest` depends on the bytes of the source and on the columns chosen, not on where the source lies.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Label] | None
    source: str
    digest: str
    images: list[Image] | None = None

    def __len__(self) -> int:
        return len(self.texts if self.images is None else self.images)

    def first(self, rows: int) -> Table:
        """Return a table of the first `rows` rows, or this one when it has no more."""
        if rows >= len(self):
            return self
        return replace(
            self,
            texts=self.texts[:rows],
            pairs=self.pairs[:rows] if self.pairs is not None else None,
            labels=self.labels[:rows] if self.labels is not None else None,
            digest=digest_of([self.digest, rows]),
            images=self.images[:rows] if self.images is not None else None,
        )


def read_table(wanted: Wanted | str, split: str | None = None, *, several: bool = False) -> Table:
    """Return the rows of a file (CSV, TSV, JSON Lines, Parquet; plain or `.gz`) or of a hub data set.

    Columns that are not named are found by name; without a label column the rows are unlabelled. TSV files are read
    with quoting off. Where a row may have `several` labels, or none, they are a list or text with a bar between them. A
    hub data set is `org/name` or `org/name:configuration`; `split` is one of its splits
    (default: train) and means nothing for a file.

    Raises:
        BadInput: no such file or data set, an unknown format, a column that is not there, a row without text or label.
        BadFile: the file is empty, or broken.
    """
    wanted = Wanted(wanted) if isinstance(wanted, str) else wanted
    source = wanted.source
    columns, table, names, digest = read_columns(wanted, split)
    labels = (
        None
        if columns.label is None
        else labels_in(table[columns.label], columns.label, source, names, several=several)
    )
    return Table(
        texts=texts_of(table[columns.text], columns.text, source),
        pairs=None if columns.pair is None else texts_of(table[columns.pair], columns.pair, source),
        labels=labels,
        source=source,
        digest=digest_of([digest, *columns]),
    )


def read_words(wanted: Wanted, split: str | None = None) -> Table:
    """Return rows of words, each perhaps with a tag: lists in a column each (JSON Lines, Parquet, hub data sets), or a
    file in the format of CoNLL (`.conll`, `.bio`, `.iob2`: a word a line, its tag last, a blank line between rows).

    `texts` are the words with a blank between them, `labels` the tags of each row. Blanks inside a word are left out.

    Raises:
        BadInput, BadFile: as `read_table` raises; words that are no lists, or not as many tags as words.
    """
    columns, table, names, digest = read_columns(wanted, split)
    words = [["".join(str(word).split()) or "?" for word in row] for row in _lists(table, columns.text, wanted.source)]
    labels: list[Label] | None = None
    if columns.label is not None:
        tags = [tuple(str(_named(one, names)) for one in row) for row in _lists(table, columns.label, wanted.source)]
        for row, (some, others) in enumerate(zip(words, tags, strict=True), start=1):
            if len(some) != len(others):
                raise BadInput(f"row {row} has {len(some)} words and {len(others)} tags", where=wanted.source)
        labels = list(tags)
    return Table([" ".join(row) for row in words], None, labels, wanted.source, digest_of([digest, *columns]))


def _lists(table: pa.Table, name: str, source: str) -> list[list[Any]]:
    kind = table[name].type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise BadInput(f"the column '{name}' holds {kind}, not a list for each row", where=source)
    missing = _first_null(table[name])
    if missing is not None:
        raise BadInput(f"row {missing} has no list in the column '{name}'", where=source)
    rows: list[list[Any]] = table[name].to_pylist()
    return rows


def read_columns(wanted: Wanted, split: str | None) -> tuple[Columns, pa.Table, list[str] | None, str]:
    """Return the columns chosen, the rows, the names of the labels where the source has them, and the digest.

    Raises:
        BadInput, BadFile: as `read_table` raises for sources and columns.
    """
    path = Path(wanted.source).expanduser()
    if path.exists():
        found = _from_file(path, wanted)
    elif looks_like_path(wanted.source):
        raise BadInput("there is no such file", where=wanted.source, fix=_close_files(path))
    else:
        found = _from_hub(wanted, split or "train")
    if found[1].num_rows == 0:
        raise BadFile("there are no rows", where=wanted.source, fix="Give a file with a header and at least one row.")
    return found


def looks_like_path(source: str) -> bool:
    """Return whether a source is meant to be a file here, and no data set of the hub."""
    suffixes = {suffix.lower() for suffix in Path(source).suffixes}
    known = {".gz", ".tar", ".tgz", ".txt", ".xz", ".zip", *_READERS}
    return bool(suffixes & known) or source.startswith((".", "/", "~")) or _HUB_NAME.fullmatch(source) is None


def _close_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"The folder {folder} is not there either."
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return (nearest(path.name, files).strip() or f"Look into {folder.resolve()}.") if files else "The folder is empty."


_Choose = Callable[[Sequence[str]], Columns]


def open_file(path: Path) -> Any:
    """Return the bytes of a file as a stream, unpacked where it ends in .gz."""
    return pa.input_stream(str(path), compression="gzip" if path.suffix.lower() == ".gz" else None)


def _delimited(path: Path, choose: _Choose, parse: pyarrow.csv.ParseOptions) -> tuple[Columns, pa.Table]:
    read = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
    with open_file(path) as stream, pyarrow.csv.open_csv(stream, read_options=read, parse_options=parse) as reader:
        columns = choose(reader.schema.names)
    # As text, so that neither "NA" nor "007" becomes something else.
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns.names, column_types=dict.fromkeys(columns.names, pa.string()), strings_can_be_null=False
    )
    with open_file(path) as stream:
        return columns, pyarrow.csv.read_csv(stream, read_options=read, parse_options=parse, convert_options=convert)


def _csv(path: Path, choose: _Choose) -> tuple[Columns, pa.Table]:
    return _delimited(path, choose, pyarrow.csv.ParseOptions(newlines_in_values=True))


def _tsv(path: Path, choose: _Choose) -> tuple[Columns, pa.Table]:
    return _delimited(path, choose, pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False))


def _jsonl(path: Path, choose: _Choose) -> tuple[Columns, pa.Table]:
    with open_file(path) as stream:
        table = pyarrow.json.read_json(stream, read_options=pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES))
    return choose(table.schema.names), table


def _parquet(path: Path, choose: _Choose) -> tuple[Columns, pa.Table]:
    with open_file(path) as stream:
        file = pyarrow.parquet.ParquetFile(pa.BufferReader(stream.read()))
    columns = choose(file.schema_arrow.names)
    return columns, file.read(columns=columns.names)


def _conll(path: Path, choose: _Choose) -> tuple[Columns, pa.Table]:
    with open_file(path) as stream:
        lines = stream.read().decode("utf-8").splitlines()
    rows: list[list[list[str]]] = [[]]
    for line in lines:
        fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            rows[-1].append(fields)
        elif rows[-1]:
            rows.append([])
    rows = [row for row in rows if row]
    columns = {"tokens": [[fields[0] for fields in row] for row in rows]}
    if all(len(fields) > 1 for row in rows for fields in row):
        columns["tags"] = [[fields[-1] for fields in row] for row in rows]
    texts = pa.list_(pa.string())
    table = pa.table({name: pa.array(lists, type=texts) for name, lists in columns.items()})
    return choose(table.schema.names), table


_READERS: dict[str, Callable[[Path, _Choose], tuple[Columns, pa.Table]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _jsonl,
    ".parquet": _parquet,
    ".conll": _conll,
    ".bio": _conll,
    ".iob2": _conll,
}


def _from_file(path: Path, wanted: Wanted) -> tuple[Columns, pa.Table, list[str] | None, str]:
    if path.is_dir():
        raise BadInput("this is a folder, not a file", where=wanted.source, fix="Name one file in it.")
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    reader = _READERS.get(plain.suffix.lower())
    if reader is None:
        raise BadInput(
            f"the format '{plain.suffix or plain.name}' is not known",
            where=wanted.source,
            fix=f"Known endings: {', '.join(_READERS)}, each also with .gz.",
        )
    if path.stat().st_size == 0:
        raise BadFile("the file is empty", where=wanted.source)
    try:
        columns, table = reader(path, lambda names: choose_columns(names, wanted))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = {".tsv": "tab-separated", ".csv": "comma-separated", ".parquet": "Parquet"}
        kind |= dict.fromkeys((".conll", ".bio", ".iob2"), "lines of a word and its tag")
        raise BadFile(
            f"not readable as {kind.get(plain.suffix.lower(), 'JSON Lines (one object per line)')}: {error}",
            where=wanted.source,
            fix="Repair the file; text is read as UTF-8.",
        ) from error
    return columns, table, None, sha256_file(path)


def _from_hub(wanted: Wanted, split: str) -> tuple[Columns, pa.Table, list[str] | None, str]:
    import datasets

    name, _, configuration = wanted.source.partition(":")
    try:
        dataset = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"neither a file here nor a data set that the hub gives with a split '{split}' ({reason})",
            where=wanted.source,
            fix="Check the name, the split and the network, or give a file.",
        ) from error
    columns = choose_columns(dataset.column_names, wanted)
    features = [dataset.features[columns.label]] if columns.label else []
    for _ in range(2):  # of a list, of a record, or of a list of either
        features = [getattr(one, "feature", one) for one in features]
        features = [part for one in features for part in (one.values() if isinstance(one, dict) else [one])]
    names = next((list(one.names) for one in features if isinstance(one, datasets.ClassLabel)), None)
    table = dataset.select_columns(columns.names).with_format("arrow")[:]
    return columns, table, names, digest_of([wanted.source, split, dataset._fingerprint])


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _first_null(column: pa.ChunkedArray) -> int | None:
    """Return the row number, counted from 1, of the first missing value."""
    return None if column.null_count == 0 else column.is_null().index(True).as_py() + 1


def texts_of(column: pa.ChunkedArray, name: str, source: str) -> list[str]:
    """Return the texts of a column.

    Raises:
        BadInput: it holds something else, or a row has none.
    """
    column = _plain(column)
    if not _is_text(column.type):
        raise BadInput(f"the column '{name}' holds {column.type}, not text", where=source, fix="Name another column.")
    missing = _first_null(column)
    if missing is not None:
        raise BadInput(f"row {missing} has no text in the column '{name}'", where=source, fix="Fill or remove the row.")
    texts: list[str] = column.to_pylist()
    return texts


def labels_in(
    column: pa.ChunkedArray, name: str, source: str, names: list[str] | None, *, several: bool
) -> list[Label] | None:
    """Return the labels as whole numbers where all are, else as fractions where all are numbers, else as text.

    None when no row has one: missing everywhere, or -1 everywhere, which is how public test sets hide them.
    """
    column = _plain(column)
    kind = column.type
    if several:
        return _several(column, name, source, names)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if not number and not _is_text(kind):
        raise BadInput(f"the column '{name}' holds {kind}, which is no label", where=source, fix="Name another column.")
    values: list[Any] = [None if value == "" else value for value in column.to_pylist()]
    if all(value is None for value in values):
        return None
    if None in values:
        row = values.index(None) + 1
        raise BadInput(f"row {row} has no label in the column '{name}'", where=source, fix="Fill or remove the row.")
    labels = as_numbers(values)
    if all(label == -1 for label in labels):
        return None
    return [_named(label, names) for label in labels]


def _several(column: pa.ChunkedArray, name: str, source: str, names: list[str] | None) -> list[Label] | None:
    """Return the labels of rows that may have any number of them, as tuples; None when the whole column is missing."""
    listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if not listed and not _is_text(column.type):
        raise BadInput(
            f"the column '{name}' holds {column.type}, not lists of labels or text with a bar between labels",
            where=source,
            fix="Name another column.",
        )
    values = column.to_pylist()
    if all(value is None for value in values):
        return None
    parts = ((value or []) if listed else (value or "").split("|") for value in values)
    return [tuple(str(_named(one, names)) for one in row if one not in (None, "")) for row in parts]


def _named(label: Label, names: list[str] | None) -> Label:
    if names is not None and isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return label


def as_numbers(values: Iterable[Any]) -> list[Label]:
    """Return labels as whole numbers where all are, else as fractions where all are numbers, else as they are."""
    labels: list[Any] = [int(value) if isinstance(value, bool) else value for value in values]
    if all(isinstance(value, str) for value in labels):
        if all(re.fullmatch(r"-?(?:0|[1-9]\d{0,17})", value) for value in labels):
            return [int(value) for value in labels]
        # Zeros in front are of a code, not of a number.
        if not all(re.fullmatch(r"[-+]?(?:\d+\.\d+(?:[eE][-+]?\d+)?|0|[1-9]\d{0,17})", value) for value in labels):
            return labels
        labels = [float(value) for value in labels]
    if all(isinstance(value, int) or (math.isfinite(value) and value.is_integer()) for value in labels):
        return [int(value) for value in labels]
    return labels
