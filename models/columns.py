"""Which columns of a table hold the texts and the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from models.errors import BadInput, nearest

# Tried in this order, whatever their case.
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("query", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("text", "pair"),
    ("question", "context"),
)
TEXT_COLUMNS: tuple[str, ...] = ("sentence", "text", "content", "review", "utterance", "document", "query", "question")
TEXT_COLUMNS += ("tokens", "words")  # of rows that are lists of words
SOURCE_COLUMNS: tuple[str, ...] = ("source", "src", "document", "article", "dialogue", "text", "sentence")
IMAGE_COLUMNS: tuple[str, ...] = ("image", "img", "picture", "photo", "file")
FIRST_COLUMNS = {"text": TEXT_COLUMNS, "source": SOURCE_COLUMNS, "image": IMAGE_COLUMNS}
LABEL_COLUMNS: tuple[str, ...] = ("label", "labels", "target", "class", "intent", "category", "sentiment", "score")
LABEL_COLUMNS += ("ner_tags", "tags", "slots", "answers")
WRITTEN_COLUMNS: tuple[str, ...] = ("target", "targets", "tgt", "translation", "summary", "highlights", "reference")

_SHOWN = 20


class Columns(NamedTuple):
    """The columns to read, as they are spelt in the source."""

    text: str
    pair: str | None
    label: str | None

    @property
    def names(self) -> list[str]:
        """Return the columns that there are, texts first."""
        return [name for name in self if name is not None]


class Wanted(NamedTuple):
    """A file or hub data set, and the columns that were asked for; the others are found by name, the first among those
    of a `kind`: text, image, or source, the label among `labels`.
    """

    source: str
    text: str | None = None
    pair: str | None = None
    label: str | None = None
    kind: str = "text"
    labels: tuple[str, ...] = LABEL_COLUMNS


def listed(names: Sequence[str]) -> str:
    """Return names for a message: the first 20, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def choose_columns(columns: Sequence[str], wanted: Wanted) -> Columns:
    """Return the columns to read out of all the columns there are: those asked for, else those of well-known names.

    Raises:
        BadInput: a column asked for is not there, no text column is found, or one column would be read twice.
    """
    lower = {name.lower(): name for name in reversed(columns)}
    text = _told(wanted.text, columns, wanted.source)
    pair = _told(wanted.pair, columns, wanted.source)
    label = _told(wanted.label, columns, wanted.source)
    if text is None and pair is None and wanted.kind == "text":
        text, pair = next(
            ((lower[one], lower[two]) for one, two in PAIR_COLUMNS if one in lower and two in lower), (None, None)
        )
    first = FIRST_COLUMNS[wanted.kind]
    text = text or next((lower[name] for name in first if name in lower and lower[name] != pair), None)
    if text is None:
        hint = " Or is the file tab-separated? Then call it .tsv." if len(columns) == 1 and "\t" in columns[0] else ""
        raise BadInput(
            f"no {wanted.kind} column found among the columns {listed(columns)}",
            where=wanted.source,
            fix=f"Say which one holds the {wanted.kind} (--text).{hint}",
        )
    label = label or next(
        (lower[name] for name in wanted.labels if name in lower and lower[name] not in (text, pair)), None
    )
    chosen = Columns(text, pair, label)
    doubled = sorted(
        name for name in set(chosen.names) if list(columns).count(name) > 1 or chosen.names.count(name) > 1
    )
    if doubled:
        raise BadInput(f"the column '{doubled[0]}' is there, or asked for, twice", where=wanted.source)
    return chosen


def _told(name: str | None, columns: Sequence[str], source: str) -> str | None:
    if name is None or name in columns:
        return name
    same = [column for column in columns if column.lower() == name.lower()]
    if len(same) == 1:
        return same[0]
    raise BadInput(
        f"there is no column '{name}'",
        where=source,
        fix=f"The columns are {listed(columns)}.{nearest(name, columns)}",
    )
