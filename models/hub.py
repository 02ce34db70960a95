"""Where a checkpoint lies: in a directory here, or on the Hugging Face hub."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from models.errors import BadInput
from models.generation_settings import GENERATION_CONFIG
from models.imaging import PROCESSOR_FILE
from models.provenance import PAGE
from models.sentence_transformers import MODULES_FILE


def local_directory(source: str | Path) -> Path:
    """Return the directory of a checkpoint, fetching a hub model's config, tokenizer and safetensors if needed.

    Raises:
        BadInput: no such directory, and no such hub model.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    name = str(source)
    if path.exists():
        raise BadInput("a checkpoint is a directory, this is a file", where=name)
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        raise BadInput("there is no such directory", where=name)
    return _fetch(name)


@cache
def _fetch(name: str) -> Path:
    """Return the snapshot of a hub model: the same for all of a process, so that what is digested is what is loaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    described = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    patterns = [*described, "*.safetensors", "*.safetensors.index.json", GENERATION_CONFIG, PAGE, PROCESSOR_FILE]
    patterns += [MODULES_FILE, *(f"*/{file}" for file in described)]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadInput(
            f"neither a directory here nor a model that the hub gives ({str(error).splitlines()[0]})",
            where=name,
            fix="Check the name, the network, or give a directory.",
        ) from error
