"""Every MUST of a bundle's manifest, checked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np

from export.bundle import Bundle
from export.golden_answers import right_label, tolerance_of
from export.manifest import (
    CONFIG_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    Golden,
    Manifest,
    PortEntry,
    port_entries,
    read_record,
)
from export.processor import Processor, processor
from export.text.ports import LABEL
from export.whole_graph import check_model
from models.errors import BadFile, Mismatch
from models.family import head_keys
from models.files import check_files, check_no_others, inside, read_object
from models.shape import BOX

EXPORT_AGAIN: Final = "It was never right, or forged: export the bundle again, or get it from whom you trust."
COPY_AGAIN: Final = "It was changed after its export: copy the bundle again from where it was made."


@final
@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked: files and their bytes, golden examples, and the largest difference from their logits."""

    files: int
    bytes: int
    examples: int
    max_abs: float
    tolerance: float


class Checked(NamedTuple):
    """A bundle whose files are all right, and the examples that it has yet to compute."""

    bundle: Bundle
    golden: Golden


def check_bundle(directory: Path, *, besides: Collection[str] = ()) -> Checked:
    """Return a bundle after checking all of it but what it computes. `besides` are files that may lie there too, as the
    record of the artifact that it is.

    Raises:
        BadFile: the manifest is not valid; a file is missing, too many, a link, not what its digest says, or leads
            outside; a model is not valid, keeps weights elsewhere, or has other inputs or outputs than the manifest
            says; the tokenizer or the labels are not the model's; or there are no golden examples.
    """
    try:
        bundle = Bundle.open(directory)
        _check_files(bundle, besides)
        _check_models(bundle)
        _check_parts(bundle)
        return Checked(bundle, _golden(bundle))
    except BadFile as error:
        raise BadFile(error.what, where=error.where, fix=error.fix or EXPORT_AGAIN) from error


def verify_bundle(directory: Path, *, besides: Collection[str] = ()) -> VerifyReport:
    """Return what was checked of a bundle that is right in every point.

    Raises:
        BadFile: as `check_bundle` raises, or an example does not fit the model.
        Mismatch: the model's outputs are not the golden ones.
    """
    return verified(check_bundle(directory, besides=besides))


def verified(checked: Checked) -> VerifyReport:
    """Return what was checked of a bundle whose outputs here are the golden ones.

    Raises:
        BadFile, Mismatch: as `verify_bundle` raises.
    """
    bundle, golden = checked
    where = bundle.directory / GOLDEN_FILE
    try:
        gaps = bundle.golden_gap(golden.examples)
    except BadFile as error:
        raise BadFile(error.what, where=str(where), fix=error.fix or EXPORT_AGAIN) from error
    worst = float(np.max(gaps))  # NaN if one is
    if not worst <= golden.tolerance:
        what = f"golden example {int(np.argmax(gaps))} differs by {worst:.3g}, allowed {golden.tolerance:.3g}"
        raise Mismatch(what, where=str(where), fix=advice(bundle.manifest, processor()))
    _check_named(bundle, golden)
    return VerifyReport(len(bundle.manifest.files), bundle.bytes, len(gaps), worst, golden.tolerance)


def _check_named(bundle: Bundle, golden: Golden) -> None:
    """Check that a graph which names its answer names the likeliest."""
    if not bundle.manifest.takes_texts or all(port.name != LABEL for port in bundle.manifest.outputs):
        return
    labels, tolerance = bundle.shape.labels, golden.tolerance
    for number, example in enumerate(golden.examples):
        if not right_label(bundle.session, example, labels, tolerance):
            what = f"the model names another label for golden example {number} than its logits"
            raise BadFile(what, where=str(bundle.model), fix=EXPORT_AGAIN)


def advice(manifest: Manifest, here: Processor) -> str:
    """Return what to do about a bundle that computes something else on this processor."""
    versions = "Compare the versions in manifest.json with those here."
    if not {"dynamic", "static"} & set(manifest.int8.values()):
        return f"This machine computes something else than the one that exported. {versions}"
    mend = "Quantize with `quantize.reduced_range: true`, whose weights of 7 bits always have room, and export again."
    if here.saturates:
        return f"{here.name} has no VNNI instructions: sums of int8 products may be cut off at 16 bits. {mend}"
    if here.saturates is None:
        return f"On x86 without VNNI instructions sums of int8 products may be cut off at 16 bits: if so here, {mend}"
    return f"{here.name} has room for sums of int8 products, so another kernel rounds otherwise. {versions}"


def _check_files(bundle: Bundle, besides: Collection[str]) -> None:
    files = {name: (entry.sha256, entry.bytes) for name, entry in bundle.manifest.files.items()}
    if GOLDEN_FILE not in files:
        raise BadFile(f"{GOLDEN_FILE} is not among its files", where=str(bundle.directory / MANIFEST_FILE))
    check_no_others(bundle.directory, {*files, MANIFEST_FILE, *besides})
    check_files(bundle.directory, files, fix=COPY_AGAIN)


def _check_models(bundle: Bundle) -> None:
    for name in bundle.manifest.models:
        check_model(inside(bundle.directory, name))
    _check_ports("input", bundle.manifest.inputs, port_entries(bundle.session.get_inputs()), bundle.model)
    _check_ports("output", bundle.manifest.outputs, port_entries(bundle.session.get_outputs()), bundle.model)
    for length in bundle.manifest.lengths:
        found = {port.name: port.shape for port in bundle.buckets.session(length).get_inputs()}
        if any(axes != [1, length] for axes in found.values()):
            raise BadFile(
                f"its inputs are not of {length} tokens where the length is fixed: {found}", where=str(bundle.model)
            )


def _check_ports(kind: str, declared: list[PortEntry], found: list[PortEntry], path: Path) -> None:
    if declared != found:
        wanted, got = (
            ", ".join(f"{port.name} {port.dtype}{port.shape}" for port in ports) for ports in (declared, found)
        )
        what = f"the manifest declares the {kind}s {wanted}, the model has {got}"
        raise BadFile(what, where=str(path))


def _check_parts(bundle: Bundle) -> None:
    """Check that what the model reads with, and the names of its answers, are its own."""
    problem = bundle.reader.problem(bundle.shape)
    if problem is not None:
        raise BadFile(problem, where=str(bundle.directory))
    if bundle.shape.output is not None:
        _ = bundle.generation
    head = bundle.shape.head
    if head is None or not head.labels:
        return
    config = read_object(bundle.directory / CONFIG_FILE, strict=True)
    wrong = [key for key, value in head_keys(head).items() if config.get(key) != value]
    if wrong:
        what = f"{', '.join(wrong)} are not those of the shape in {MANIFEST_FILE}"
        raise BadFile(what, where=str(bundle.directory / CONFIG_FILE))
    given, wanted = bundle.manifest.outputs[0].shape[-1], bundle.shape.outputs - (BOX if head.boxes else 0)
    if isinstance(given, int) and given != wanted:
        what = f"the shape says that an answer has {wanted} numbers, and the model gives {given}"
        raise BadFile(what, where=str(bundle.directory / MANIFEST_FILE))


def _golden(bundle: Bundle) -> Golden:
    golden, path = read_record(Golden, bundle.directory / GOLDEN_FILE), str(bundle.directory / GOLDEN_FILE)
    if not golden.examples:
        raise BadFile("holds no examples, so nothing is proven by it", where=path)
    allowed = tolerance_of(bundle.shape)
    if golden.tolerance > allowed:
        what = f"its tolerance is {golden.tolerance:.3g}, and such a model is right within {allowed:.3g}"
        raise BadFile(what, where=path)
    shortest, lengths = min(len(example.input_ids) for example in golden.examples), bundle.manifest.lengths
    if lengths and shortest > lengths[0]:
        raise BadFile(f"no example is as short as {lengths[0]} tokens, so nothing is proven of that length", where=path)
    return golden
