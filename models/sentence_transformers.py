"""Directories of sentence-transformers: an encoder, and files that say how its embeddings are made."""

from __future__ import annotations

from pathlib import Path

from models.errors import BadFile, Unsupported
from models.files import inside, read_json, read_object, write_json
from models.shape import HeadShape, ModelShape, Reads

MODULES_FILE = "modules.json"
POOLING = "1_Pooling"
NORMALIZE = "2_Normalize"
EMBEDDING = "sentence-embedding"
_TYPES = "sentence_transformers.models"
_MODE = "pooling_mode"
_READS = {f"{_MODE}_mean_tokens": Reads.MEAN, f"{_MODE}_cls_token": Reads.FIRST}
_NAMES = {"mean": f"{_MODE}_mean_tokens", "cls": f"{_MODE}_cls_token"}  # as later versions write them


def encoder_directory(directory: Path) -> Path:
    """Return where the encoder's own files are: a directory inside, or this one.

    Raises:
        BadFile, Unsupported: `modules.json` is broken, or begins with something else.
    """
    if not (directory / MODULES_FILE).exists():
        return directory
    kind, path = _modules(directory)[0]
    if kind != "Transformer":
        raise Unsupported(f"the first module is a {kind}, not a Transformer", where=str(directory / MODULES_FILE))
    return inside(directory, path) if path else directory


def embedding_head(directory: Path, *, hidden_size: int) -> HeadShape | None:
    """Return the head that pools as the directory says; None where it is not of sentence-transformers.

    Raises:
        BadFile: a file is missing or broken.
        Unsupported: another pooling than the first token or the mean, or another module.
    """
    if not (directory / MODULES_FILE).exists():
        return None
    where = str(directory / MODULES_FILE)
    (_, *others) = _modules(directory)
    kinds = [kind for kind, _ in others]
    if kinds not in (["Pooling"], ["Pooling", "Normalize"]):
        raise Unsupported(
            f"the modules behind the encoder are {', '.join(kinds) or 'none'}",
            where=where,
            fix="Read are Pooling, and Normalize behind it.",
        )
    settings = read_object(inside(directory, others[0][1]) / "config.json")
    modes = [name for name, value in settings.items() if name.startswith(f"{_MODE}_") and value is True]
    if _MODE in settings:
        modes = [_NAMES.get(str(settings[_MODE]), f"{_MODE} {settings[_MODE]}")]
    if len(modes) != 1 or modes[0] not in _READS:
        raise Unsupported(f"a pooling by {' and '.join(modes) or 'nothing'}", where=where, fix=f"Read: {list(_READS)}.")
    return HeadShape(
        labels=(), task=EMBEDDING, reads=_READS[modes[0]], width=hidden_size, normalized="Normalize" in kinds
    )


def write_modules(directory: Path, shape: ModelShape) -> None:
    """Write how the embeddings of a model are made, beside its encoder; nothing where its head has labels."""
    head = shape.head
    if head is None or head.labels:
        return
    kinds = [("Transformer", ""), ("Pooling", POOLING), *([("Normalize", NORMALIZE)] if head.normalized else [])]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_TYPES}.{kind}"}
        for place, (kind, path) in enumerate(kinds)
    ]
    write_json(directory / MODULES_FILE, modules)
    (directory / POOLING).mkdir()
    modes = {name: reads is head.reads for name, reads in _READS.items()}
    write_json(directory / POOLING / "config.json", {"word_embedding_dimension": head.width, **modes})
    longest = {"max_seq_length": shape.usable_positions, "do_lower_case": False}
    write_json(directory / "sentence_bert_config.json", longest)


def _modules(directory: Path) -> list[tuple[str, str]]:
    """Return the last word of each module's type, and its path."""
    path = directory / MODULES_FILE
    try:
        modules = [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in read_json(path)]
    except (KeyError, TypeError) as error:
        raise BadFile(f"not a list of modules ({error})", where=str(path)) from None
    if not modules:
        raise BadFile("lists no module", where=str(path))
    return modules
