"""Every MUST of a bundle's manifest, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from export.bundle import Bundle, port_entries
from export.manifest import GOLDEN_FILE, MANIFEST_FILE, Golden, PortEntry, read_record
from models.errors import BadFile, Mismatch
from models.files import check_files, inside


@final
@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked: files and their bytes, golden examples, and the largest difference from their logits."""

    files: int
    bytes: int
    examples: int
    max_abs: float
    tolerance: float


def verify_bundle(directory: Path) -> VerifyReport:
    """Return what was checked of a bundle that is right in every point.

    Raises:
        BadFile: the manifest is not valid, names a path outside, or a file is missing or not what its digest says; the
            model is not valid ONNX, keeps weights elsewhere, or has other inputs or outputs than the manifest says.
        Mismatch: the model's outputs are not the golden ones.
    """
    bundle = Bundle.open(directory)
    files = {name: (entry.sha256, entry.bytes) for name, entry in bundle.manifest.files.items()}
    if GOLDEN_FILE not in files:
        raise BadFile(f"{GOLDEN_FILE} is not among its files", where=str(directory / MANIFEST_FILE))
    check_files(directory, files)
    for name in (bundle.manifest.model, bundle.manifest.encoder):
        if name is not None and name.endswith(".onnx"):
            _check_onnx(inside(directory, name))
    _check_ports("input", bundle.manifest.inputs, port_entries(bundle.session.get_inputs()), bundle.model)
    _check_ports("output", bundle.manifest.outputs, port_entries(bundle.session.get_outputs()), bundle.model)
    golden = read_record(Golden, directory / GOLDEN_FILE)
    gaps = bundle.golden_gap(golden.examples)
    worst = max(gaps, default=0.0)
    if not worst <= golden.tolerance:
        raise Mismatch(
            f"golden example {gaps.index(worst)} differs by {worst:.3g}, allowed {golden.tolerance:.3g}",
            where=str(directory),
            fix="This machine computes something else than the one that exported: see versions in manifest.json.",
        )
    return VerifyReport(len(files), bundle.bytes, len(gaps), worst, golden.tolerance)


def _check_onnx(path: Path) -> None:
    try:
        model = onnx.load(str(path), load_external_data=False)
        outside = [
            weight.name for weight in model.graph.initializer if onnx.external_data_helper.uses_external_data(weight)
        ]
        if outside:
            raise BadFile(f"weights such as {outside[0]!r} lie outside the file", where=str(path))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise BadFile(f"not a valid ONNX model ({str(error).splitlines()[0]})", where=str(path)) from error


def _check_ports(kind: str, declared: list[PortEntry], found: list[PortEntry], path: Path) -> None:
    if declared != found:
        wanted, got = (
            ", ".join(f"{port.name} {port.dtype}{port.shape}" for port in ports) for ports in (declared, found)
        )
        raise BadFile(f"the manifest declares the {kind}s {wanted}, the model has {got}", where=str(path))
