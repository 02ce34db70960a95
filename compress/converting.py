"""From a checkpoint or an artifact of a run to files that `transformers` and the hub read, to go on with there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.artifact import RECORD_FILE, open_artifact
from compress.model_card import licence_told
from export.manifest import MANIFEST_FILE
from models.checkpoint import Checkpoint
from models.errors import BadInput, Unsupported
from models.files import bytes_below, new_directory, read_object, write_text
from models.hub import local_directory
from models.provenance import PAGE, Provenance, page_of
from models.sentence_transformers import MODULES_FILE


def convert_model(source: str, out: Path) -> dict[str, Any]:
    """Write config, safetensors, tokenizer (or what reads images) and a page into the new directory `out`, and return
    what was written, as a JSON object.

    Raises:
        BadInput: `source` is a bundle, or there is something at `out` already.
        BadFile: an artifact is not what its record says, or no checkpoint.
        Unsupported: the family's format cannot say this shape; what it cannot say is named.
    """
    directory = local_directory(source)
    if (directory / MANIFEST_FILE).exists():
        raise BadInput(
            "a bundle is a graph, not a checkpoint",
            where=source,
            fix="Convert the stage that it was exported from, or load it with Optimum: its README.md says how.",
        )
    if (directory / RECORD_FILE).exists():
        open_artifact(directory)
    checkpoint = Checkpoint.load(source)
    with new_directory(out) as partial:
        try:
            checkpoint.save_hugging_face(partial)
        except Unsupported as error:
            raise Unsupported(error.what, where=source, fix=error.fix) from None
        config = read_object(partial / "config.json")
        library = "sentence-transformers" if (partial / MODULES_FILE).exists() else "transformers"
        write_text(partial / PAGE, _page(config["architectures"][0], checkpoint.source, library))
        size = bytes_below(partial)
    return {
        "source": source,
        "out": str(out),
        "class": config["architectures"][0],
        "parameters": checkpoint.parameters,
        "bytes": size,
    }


def _page(architecture: str, source: Provenance, library: str) -> str:
    """Return the page of a converted checkpoint, which `library` loads: it keeps the licence of its `source`."""
    told = source.metadata | {"library_name": library, "tags": ["compress-transformers"]}
    origin = f"Made from `{source.name}` of the Hugging Face hub. " if source.name else ""
    return page_of(told, f"# {architecture}\n\n{origin}{licence_told(source)}\n")
