"""Directories of sentence-transformers: an encoder, and files that say how its embeddings are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from models.errors import BadFile, Unsupported
from models.files import inside, read_json, read_object, write_bytes, write_json
from models.kinds import Reads
from models.shape import HeadShape, ModelShape

MODULES_FILE = "modules.json"
POOLING = "1_Pooling"
DENSE_FILES = ("config.json", "model.safetensors")
LINEAR = "torch.nn.modules.linear.Identity"  # what a Dense names that ends in no activation
KNOWN = (["Pooling"], ["Pooling", "Normalize"], ["Pooling", "Dense"], ["Pooling", "Dense", "Normalize"])
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
    modules = _modules(directory)
    if not modules:
        return directory
    kind, path = modules[0]
    if kind != "Transformer":
        raise Unsupported(f"the first module is a {kind}, not a Transformer", where=str(directory / MODULES_FILE))
    return inside(directory, path) if path else directory


def embedding_head(directory: Path, *, hidden_size: int) -> HeadShape | None:
    """Return the head that pools as the directory says; None where it is not of sentence-transformers.

    Raises:
        BadFile: a file is missing or broken.
        Unsupported: another pooling than the first token or the mean, or another module.
    """
    modules = _modules(directory)
    if not modules:
        return None
    where, others = str(directory / MODULES_FILE), modules[1:]
    kinds = [kind for kind, _ in others]
    if kinds not in KNOWN:
        raise Unsupported(
            f"the modules behind the encoder are {', '.join(kinds) or 'none'}",
            where=where,
            fix="Read are Pooling, and behind it Dense, Normalize, or both in this order.",
        )
    settings = read_object(inside(directory, others[0][1]) / "config.json")
    modes = [name for name, value in settings.items() if name.startswith(f"{_MODE}_") and value is True]
    if _MODE in settings:
        modes = [_NAMES.get(str(settings[_MODE]), f"{_MODE} {settings[_MODE]}")]
    if len(modes) != 1 or modes[0] not in _READS:
        raise Unsupported(f"a pooling by {' and '.join(modes) or 'nothing'}", where=where, fix=f"Read: {list(_READS)}.")
    dense = dense_directory(directory)
    return HeadShape(
        labels=(),
        task=EMBEDDING,
        reads=_READS[modes[0]],
        width=hidden_size if dense is None else _width_of(dense),
        normalized="Normalize" in kinds,
        projected=dense is not None,
    )


def module_directories(directory: Path) -> list[Path]:
    """Return the directories inside this one that modules have their files in; none where it has no modules.

    Raises:
        BadFile: `modules.json` is broken.
    """
    return [inside(directory, path) for _, path in _modules(directory) if path]


def dense_directory(directory: Path) -> Path | None:
    """Return where the weights of the linear layer behind the pooling are, if there is one."""
    return next((inside(directory, path) for kind, path in _modules(directory) if kind == "Dense"), None)


def write_modules(directory: Path, shape: ModelShape, dense: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write how the embeddings of a model are made, beside its encoder; nothing where its head has labels. `dense` is
    `weight` (width, hidden) and `bias` (width) of a projection, where the head has one.
    """
    head = shape.head
    if head is None or head.labels:
        return
    behind = [*(["Dense"] if head.projected else []), *(["Normalize"] if head.normalized else [])]
    paths = {"Pooling": POOLING, **{kind: f"{place}_{kind}" for place, kind in enumerate(behind, start=2)}}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_TYPES}.{kind}"}
        for place, (kind, path) in enumerate([("Transformer", ""), *paths.items()])
    ]
    write_json(directory / MODULES_FILE, modules)
    if head.projected:
        _write_dense(directory / paths["Dense"], dense)
    (directory / POOLING).mkdir()
    modes = {name: reads is head.reads for name, reads in _READS.items()}
    write_json(directory / POOLING / "config.json", {"word_embedding_dimension": shape.hidden_size, **modes})
    longest = {"max_seq_length": shape.usable_positions, "do_lower_case": False}
    write_json(directory / "sentence_bert_config.json", longest)


def _write_dense(directory: Path, dense: Mapping[str, npt.NDArray[Any]]) -> None:
    from safetensors.numpy import save  # a device that answers with a bundle does without

    width, hidden_size = dense["weight"].shape
    directory.mkdir()
    config, weights = (directory / name for name in DENSE_FILES)
    sizes = {"in_features": hidden_size, "out_features": width, "bias": True}
    write_json(config, {**sizes, "activation_function": LINEAR})
    write_bytes(weights, save({f"linear.{name}": value for name, value in dense.items()}))


def _width_of(dense: Path) -> int:
    """Return how many numbers a linear layer gives.

    Raises:
        BadFile: its settings are missing or broken.
        Unsupported: an activation behind it.
    """
    settings, where = read_object(dense / DENSE_FILES[0]), str(dense / DENSE_FILES[0])
    activation = settings.get("activation_function")
    if activation != LINEAR:
        raise Unsupported(f"a Dense that ends in {activation}", where=where, fix=f"Read is {LINEAR}.")
    width = settings.get("out_features")
    if not isinstance(width, int):
        raise BadFile(f"out_features is {width!r}", where=where)
    return width


def _modules(directory: Path) -> list[tuple[str, str]]:
    """Return the last word of each module's type, and its path; nothing where the directory is of another kind."""
    path = directory / MODULES_FILE
    if not path.exists():
        return []
    try:
        modules = [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in read_json(path)]
    except (KeyError, TypeError) as error:
        raise BadFile(f"not a list of modules ({error})", where=str(path)) from None
    if not modules:
        raise BadFile("lists no module", where=str(path))
    return modules
