"""Two-way tables between a checkpoint's weight names and ours."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from models.errors import BadFile, Unsupported

T = TypeVar("T")
_LAYER = re.compile(r"(?P<stack>(?:decoder\.)?)layers\.(?P<i>\d+)\.")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: `{i}` stands for a layer's number, `{p}` for weight or bias, where theirs says which.

    Where only ours has an `{i}`, all layers share theirs. `{g}` in theirs is the number of a group of layers that share
    it; in what is written, every layer is a group of its own. Shared weights are read once for every layer.

    `optional` weights may be absent from a checkpoint (a head that is not trained yet). A row with `tokens` is written
    only of a head that answers tokens, or only of one that does not; one with `task` only of a head for that task, and
    it stands before the others. One with `form` is written only of a model of this form, where a family names it in
    several ways. Several rows may read one of ours, of which the first is written; where several read one of theirs,
    the first whose weight is wanted does.
    """

    theirs: str
    ours: str
    optional: bool = False
    tokens: bool | None = None
    task: str | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What a config says about names: how many groups of layers share their weights where the family has a `{g}`, and
    patterns of our names that the checkpoint does not hold because they are zero.
    """

    groups: int = 1
    zero: tuple[str, ...] = ()

    def is_zero(self, name: str) -> bool:
        """Return whether one of our weights is zero and not held."""
        return any(re.fullmatch(pattern, name) for pattern in self.zero)


@dataclass(frozen=True, slots=True)
class Names:
    """A family's table, with patterns of foreign names that carry nothing for us.

    `fused` are endings of modules in a checkpoint whose outputs are those of several of ours, and of how many: the rows
    name them with the number of the part behind, from 0. `stacked` are endings of weights that hold those of several
    layers, one after another, and the number of the first of these layers, which the rows name behind. `transposed` are
    endings of modules whose weights are (in, out) there. `zero` are patterns of our names that are zero where a
    checkpoint lacks them, and are not written where they are zero.
    """

    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()
    fused: tuple[tuple[str, int], ...] = ()
    stacked: tuple[tuple[str, int], ...] = ()
    transposed: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("",)  # what may stand before every name in a checkpoint, tried in this order

    def read(
        self,
        theirs: Mapping[str, T],
        wanted: Iterable[str],
        *,
        where: str,
        layout: Layout = Layout(),
        same: Callable[[T, T], bool] = operator.eq,
    ) -> dict[str, T]:
        """Return our names for the weights of a checkpoint, of which fused ones are in parts already; `same` says
        whether two weights are equal.

        Raises:
            BadFile: names that are unknown, and wanted names that stay unset, all in one message; or weights that
                differ and are one here.
        """
        wanted = {name for name in wanted if not layout.is_zero(name)}
        layers = _layers(wanted)
        optional = {_template(row.ours) for row in self.rows if row.optional}
        found: dict[str, T] = {}
        unknown, torn = [], []
        for name, value in theirs.items():
            ours = next((some for row in self.rows if (some := wanted & self._ours(row, name, layers, layout))), None)
            if ours is not None:
                torn += [name] if any(not same(found.setdefault(one, value), value) for one in sorted(ours)) else []
            elif any(_template(one) in optional for row in self.rows for one in self._ours(row, name, layers, layout)):
                continue  # a head that is not asked for
            elif not any(re.fullmatch(pattern, name) for pattern in self.ignored):
                unknown.append(name)
        unset = sorted(
            name for name in wanted - set(found) if _template(name) not in optional and not self.is_zero(name)
        )
        if unset or unknown:
            raise BadFile(_complaint(unset, sorted(unknown)), where=where)
        if torn:
            raise BadFile(f"{_some(sorted(torn))} differs from what it is shared with in this family", where=where)
        return found

    def is_zero(self, name: str) -> bool:
        """Return whether one of our weights is zero where a checkpoint lacks it."""
        return any(re.fullmatch(pattern, name) for pattern in self.zero)

    def is_named(self, name: str) -> bool:
        """Return whether a checkpoint has a name for one of our weights."""
        return any(_template(row.ours) == _template(name) for row in self.rows)

    def is_transposed(self, name: str) -> bool:
        """Return whether a checkpoint's weight is (in, out) there; of a fused one, whether the whole is."""
        module, _, kind = self.whole(name).rpartition(".")
        return kind == "weight" and module.endswith(self.transposed) and bool(self.transposed)

    def write(
        self,
        ours: Mapping[str, T],
        *,
        prefix: str,
        tokens: bool = False,
        task: str | None = None,
        form: str | None = None,
        same: Callable[[T, T], bool] = operator.eq,
    ) -> dict[str, T]:
        """Return the checkpoint's names for our weights; `tokens` says whether the head answers tokens, `task` what it
        is for, `form` how the family names what it names in several ways, `same` whether two weights are equal.

        Raises:
            BadFile: a weight has no name in this family.
            Unsupported: layers differ in what they share in this family.
        """
        written: dict[str, T] = {}
        homeless, torn = [], []
        asked = (tokens, task, form)
        fitting = [
            row
            for row in self.rows
            if all(own in (None, one) for own, one in zip((row.tokens, row.task, row.form), asked, strict=True))
        ]
        rows = {_template(row.ours): row for row in reversed(fitting)}
        for name, value in ours.items():
            row = rows.get(_template(name))
            if row is None:
                homeless.append(name)
                continue
            place = (prefix if not row.theirs.startswith("^") else "") + _fill(row.theirs.lstrip("^"), name)
            if not same(written.setdefault(place, value), value):
                torn.append(place)
        if homeless:
            raise BadFile(f"has weights that the format cannot name: {', '.join(sorted(homeless))}")
        if torn:
            raise Unsupported(
                f"all layers share {_some(sorted(set(torn)))} in this format, and here they differ",
                where="this model",
                fix="Keep it in our own format, or export it to ONNX.",
            )
        return written

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the names of the parts of a fused weight of a checkpoint, or its own name alone."""
        stem, _, kind = name.rpartition(".")
        count = next((count for ending, count in self.fused if stem.endswith(ending)), 0)
        return tuple(f"{stem}.{part}.{kind}" for part in range(count)) if count else (name,)

    def whole(self, name: str) -> str:
        """Return the name of the fused weight of a checkpoint that `name` is a part of, or its own name."""
        stem, _, kind = name.rpartition(".")
        stem, _, part = stem.rpartition(".")
        fused = part.isdigit() and any(stem.endswith(ending) for ending, _ in self.fused)
        return f"{stem}.{kind}" if fused else name

    def layers(self, name: str, count: int) -> tuple[str, ...] | None:
        """Return the names of `count` layers' weights in a stacked weight of a checkpoint; None if it is no such."""
        first = next((first for ending, first in self.stacked if name.endswith(ending)), None)
        return None if first is None else tuple(f"{name}.{number}" for number in range(first, first + count))

    def stack(self, name: str) -> tuple[str, int] | None:
        """Return the stacked weight of a checkpoint that `name` is a layer's part of, with the layer's number."""
        stem, _, number = name.rpartition(".")
        known = number.isdigit() and any(stem.endswith(ending) for ending, _ in self.stacked)
        return (stem, int(number)) if known else None

    def _ours(self, row: Row, name: str, layers: Mapping[str, int], layout: Layout) -> set[str]:
        """Return our names for one of theirs by a row: none, one, or that of every layer which shares it."""
        # A name that begins with ^ stands at the top of the file; the others may follow a prefix.
        prefixes = ("",) if row.theirs.startswith("^") else self.prefixes
        pattern = re.escape(row.theirs.lstrip("^")).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{g\}", r"(?P<g>\d+)")
        pattern = pattern.replace(r"\{p\}", "(?P<p>weight|bias)")
        match = re.fullmatch(f"(?:{'|'.join(re.escape(prefix) for prefix in prefixes)}){pattern}", name)
        if match is None:
            return set()
        known = match.groupdict()
        if "i" in known or "{i}" not in row.ours:
            return {row.ours.format(**known)}
        count = layers.get(row.ours.partition("layers.")[0], 1)
        # The group of a layer as transformers' AlbertTransformer has it.
        of_group = count / layout.groups
        sharers = [at for at in range(count) if "g" not in known or int(at / of_group) == int(known["g"])]
        return {row.ours.format(**{**known, "i": at}) for at in sharers}


def _layers(names: Iterable[str]) -> dict[str, int]:
    """Return how many layers each stack has, by what stands before `layers` in its names."""
    counts: dict[str, int] = {}
    for name in names:
        layer = _LAYER.match(name)
        if layer is not None:
            counts[layer["stack"]] = max(counts.get(layer["stack"], 0), 1 + int(layer["i"]))
    return counts


def _template(name: str) -> str:
    """Return our name with its layer number and its weight or bias taken out."""
    template = _LAYER.sub(r"\g<stack>layers.{i}.", name)
    return re.sub(r"\.(weight|bias)$", ".{p}", template)


def _fill(theirs: str, ours: str) -> str:
    layer = _LAYER.match(ours)
    number = layer["i"] if layer else ""
    return theirs.format(i=number, g=number, p=ours.rsplit(".", 1)[1])


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
