"""Two-way tables between a checkpoint's weight names and ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from models.errors import BadFile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: `{i}` stands for a layer's number, `{p}` for weight or bias.

    `optional` weights may be absent from a checkpoint (a head that is not trained yet). A row with `tokens` is written
    only of a head that answers tokens, or only of one that does not; one with `task` only of a head for that task, and
    it stands before the others.
    """

    theirs: str
    ours: str
    optional: bool = False
    tokens: bool | None = None
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """A family's table, with patterns of foreign names that carry nothing for us."""

    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("",)  # what may stand before every name in a checkpoint, tried in this order

    def read(self, theirs: Mapping[str, T], wanted: Iterable[str], *, where: str) -> dict[str, T]:
        """Return our names for the weights of a checkpoint.

        Raises:
            BadFile: names that are unknown, and wanted names that stay unset, all in one message.
        """
        wanted = set(wanted)
        optional = {row.ours for row in self.rows if row.optional}
        found: dict[str, T] = {}
        unknown = []
        for name, value in theirs.items():
            ours = self._ours(name)
            if ours is not None and ours in wanted:
                found[ours] = value
            elif ours is not None and _template(ours) in optional:
                continue  # a head that is not asked for
            elif not any(re.fullmatch(pattern, name) for pattern in self.ignored):
                unknown.append(name)
        unset = sorted(name for name in wanted - set(found) if _template(name) not in optional)
        if unset or unknown:
            raise BadFile(_complaint(unset, sorted(unknown)), where=where)
        return found

    def write(
        self, ours: Mapping[str, T], *, prefix: str, tokens: bool = False, task: str | None = None
    ) -> dict[str, T]:
        """Return the checkpoint's names for our weights; `tokens` says whether the head answers tokens, `task` what it
        is for.

        Raises:
            BadFile: a weight has no name in this family.
        """
        written: dict[str, T] = {}
        homeless = []
        fitting = [row for row in self.rows if row.tokens in (None, tokens) and row.task in (None, task)]
        rows = {row.ours: row for row in reversed(fitting)}
        for name, value in ours.items():
            row = rows.get(_template(name))
            if row is None:
                homeless.append(name)
                continue
            written[(prefix if not row.theirs.startswith("^") else "") + _fill(row.theirs.lstrip("^"), name)] = value
        if homeless:
            raise BadFile(f"has weights that the format cannot name: {', '.join(sorted(homeless))}")
        return written

    def _ours(self, name: str) -> str | None:
        for row in self.rows:
            # A name that begins with ^ stands at the top of the file; the others may follow a prefix.
            prefixes = ("",) if row.theirs.startswith("^") else self.prefixes
            pattern = re.escape(row.theirs.lstrip("^")).replace(r"\{i\}", r"(?P<i>\d+)")
            pattern = pattern.replace(r"\{p\}", "(?P<p>weight|bias)")
            match = re.fullmatch(f"(?:{'|'.join(re.escape(prefix) for prefix in prefixes)}){pattern}", name)
            if match:
                return row.ours.format(**match.groupdict())
        return None


def _template(name: str) -> str:
    """Return our name with its layer number and its weight or bias taken out."""
    template = re.sub(r"^layers\.\d+\.", "layers.{i}.", name)
    return re.sub(r"\.(weight|bias)$", ".{p}", template)


def _fill(theirs: str, ours: str) -> str:
    layer = re.match(r"layers\.(\d+)\.", ours)
    return theirs.format(i=layer.group(1) if layer else "", p=ours.rsplit(".", 1)[1])


def _complaint(unset: list[str], unknown: list[str]) -> str:
    parts = []
    if unset:
        parts.append(f"lacks {_some(unset)}")
    if unknown:
        parts.append(f"holds weights that are not of this configuration: {_some(unknown)}")
    return "the checkpoint " + " and ".join(parts)


def _some(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
