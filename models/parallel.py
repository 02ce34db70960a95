"""From files and hub data sets to texts with what is to be written for them, and to running text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from models.columns import WRITTEN_COLUMNS, Wanted
from models.data import Label, Table, open_file, read_columns, read_table, texts_of
from models.errors import BadFile, BadInput
from models.files import digest_of, sha256_file

KNOWN = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
RUNNING = (".txt", ".text", ".tokens", ".raw")


def read_written(wanted: Wanted, split: str | None = None) -> Table:
    """Return texts, each with the texts that are right to write for it, as tuples; or all without.

    A source is a table with a column for each, where a list in the first holds the sentences of one text and a list in
    the second several texts that are right. Or it is one of two files of lines, `train.en` beside `train.de`, perhaps
    `.gz`: `wanted.label` is then the ending of the other one. `wanted.text`, where it is named, is that of the first.

    Raises:
        BadInput, BadFile: as `read_table` raises; files of lines that differ in length.
    """
    path = Path(wanted.source).expanduser()
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if path.is_file() and plain.suffix.lower() not in KNOWN:
        return _of_lines(path, plain, wanted)
    columns, table, _, digest = read_columns(wanted._replace(kind="source", labels=WRITTEN_COLUMNS), split)
    labels: list[Label] | None = None
    if columns.label is not None:
        labels = _references(table[columns.label], columns.label, wanted.source)
    return Table(
        texts=_joined(table[columns.text], columns.text, wanted.source),
        pairs=None,
        labels=labels,
        source=wanted.source,
        digest=digest_of([digest, "written", *columns]),
    )


def read_running(wanted: Wanted, split: str | None = None) -> Table:
    """Return running text, a row for each document: a whole file of plain text, or a row of a table.

    Raises:
        BadInput, BadFile: as `read_table` raises.
    """
    path = Path(wanted.source).expanduser()
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if not path.is_file() or plain.suffix.lower() not in RUNNING:
        columns = wanted._replace(label=None, pair=None)
        table = read_table(columns, split)
        return Table(table.texts, None, None, table.source, digest_of([table.digest, "running"]))
    text = _text(path, wanted.source)
    if not text.strip():
        raise BadFile("there is no text", where=wanted.source)
    return Table([text], None, None, wanted.source, digest_of([sha256_file(path), "running"]))


def _of_lines(path: Path, plain: Path, wanted: Wanted) -> Table:
    own = plain.suffix.removeprefix(".")
    if wanted.text is not None and wanted.text != own:
        raise BadInput(f"this is a file of {own}, not of {wanted.text}", where=wanted.source, fix="Name it.")
    texts, digest = _lines(path), [sha256_file(path)]
    labels: list[Label] | None = None
    if wanted.label is not None:
        other = path.with_name(path.name.replace(plain.name, f"{plain.stem}.{wanted.label}"))
        if not other.is_file():
            raise BadInput("there is no such file of what is to be written", where=str(other), fix="See --label.")
        targets = _lines(other)
        if len(targets) != len(texts):
            raise BadInput(f"{len(texts)} lines, and {len(targets)} in {other.name}", where=wanted.source)
        labels = [(line,) for line in targets]
        digest.append(sha256_file(other))
    return Table(texts, None, labels, wanted.source, digest_of(["lines", *digest]))


def _lines(path: Path) -> list[str]:
    text = _text(path, str(path))
    # Not splitlines: a text may hold the marks that Unicode has for new lines.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if lines == [""]:
        raise BadFile("the file is empty", where=str(path))
    return lines


def _text(path: Path, where: str) -> str:
    try:
        with open_file(path) as stream:
            content: bytes = stream.read()
        return content.decode("utf-8")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadFile(f"not readable as lines of text: {error}", where=where, fix="Text is read as UTF-8.") from error


def _joined(column: pa.ChunkedArray, name: str, source: str) -> list[str]:
    """Return the texts of a column, those of lists with a blank between."""
    if not _is_list(column):
        return texts_of(column, name, source)
    return [" ".join(str(part) for part in row or ()) for row in column.to_pylist()]


def _references(column: pa.ChunkedArray, name: str, source: str) -> list[Label] | None:
    """Return the texts that are right for each row; None where no row has one."""
    if column.null_count == len(column):
        return None
    if not _is_list(column):
        return [(text,) for text in texts_of(column, name, source)]
    rows = [tuple(str(one) for one in row or ()) for row in column.to_pylist()]
    if () in rows:
        raise BadInput(f"row {rows.index(()) + 1} has no text in the column '{name}'", where=source)
    return list(rows)


def _is_list(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_list(column.type) or pa.types.is_large_list(column.type))
