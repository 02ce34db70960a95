"""From files and hub data sets to questions, each with a context and perhaps with answers. Loads no torch."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.columns import Wanted
from models.data import Label, Table, read_columns, texts_of
from models.errors import BadFile, BadInput
from models.files import digest_of, sha256_file


def read_questions(wanted: Wanted, split: str | None = None) -> Table:
    """Return questions as `texts` and contexts as `pairs`; `labels` are tuples of (answer, its first character), empty
    where the context has no answer.

    Read are SQuAD's JSON files (Rajpurkar et al. 2016), and tables (JSON Lines, Parquet, hub data sets) with columns of
    questions, contexts and answers: {"text": [...], "answer_start": [...]}. Every answer has to stand where it says.

    Raises:
        BadInput, BadFile: as `read_table` raises; an answer that is not there.
    """
    squad = _squad(Path(wanted.source).expanduser())
    if squad is not None:
        rows = list(_rows(squad, wanted.source))
        if not rows:
            raise BadFile("there are no questions", where=wanted.source)
        questions, contexts, answers = (list(column) for column in zip(*rows, strict=True))
        digest = sha256_file(Path(wanted.source).expanduser())
        labelled = True
    else:
        columns, table, _, digest = read_columns(wanted, split)
        if columns.pair is None:
            raise BadInput("there is no column of contexts", where=wanted.source, fix="Name it (--text-pair).")
        digest = digest_of([digest, *columns])
        questions, contexts = (texts_of(table[name], name, wanted.source) for name in (columns.text, columns.pair))
        labelled = columns.label is not None
        answers = table[columns.label].to_pylist() if columns.label is not None else []
    labels: list[Label] | None = None
    if labelled:
        labels = [
            _answers(*row, wanted.source) for row in zip(range(1, len(answers) + 1), contexts, answers, strict=True)
        ]
    return Table(questions, contexts, labels, wanted.source, digest)


def _squad(path: Path) -> list[Any] | None:
    """Return the articles of a file in SQuAD's form; None where it has another."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if plain.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        data = gzip.decompress(path.read_bytes()) if plain != path else path.read_bytes()
        value = json.loads(data.decode("utf-8"))
    except (OSError, EOFError, ValueError, zlib.error, RecursionError):
        return None  # JSON Lines, or broken: whoever reads tables says what is wrong
    articles = value.get("data") if isinstance(value, dict) else None
    return articles if isinstance(articles, list) else None


def _rows(articles: list[Any], source: str) -> Iterator[tuple[str, str, Any]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for one in paragraph["qas"]:
                    yield str(one["question"]), str(paragraph["context"]), one.get("answers", [])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"not in the form of SQuAD ({error})", where=source) from None


def _answers(row: int, context: str, answers: Any, source: str) -> tuple[tuple[str, int], ...]:
    """Return the answers of a row, each with its first character.

    Raises:
        BadInput: they are not in the form of SQuAD, or one does not stand where it says.
    """
    try:
        if isinstance(answers, Mapping):
            pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        else:
            pairs = [(one["text"], one["answer_start"]) for one in answers or ()]
        found = tuple((str(text), int(start)) for text, start in pairs)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"row {row} has answers that are not text and answer_start ({error})",
            where=source,
            fix='Write {"text": ["..."], "answer_start": [0]}, with empty lists where there is no answer.',
        ) from None
    for text, start in found:
        if not text or start < 0 or context[start : start + len(text)] != text:
            raise BadInput(
                f"row {row} has the answer {text[:40]!r} at character {start}, where the context says "
                f"{context[max(0, start) : max(0, start) + len(text)][:40]!r}",
                where=source,
                fix="answer_start counts characters of the context from 0.",
            )
    return found
