"""What a bundle is written from, and the writing. Nothing of it is needed where a bundle runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy.typing as npt
import onnxruntime

from export.bundle import Bundle, task_of
from export.card import Card
from export.golden_answers import answered_example, tolerance_of
from export.golden_writing import searched_example, written_example
from export.graph_search import GraphSearch
from export.loader_config import loader_config
from export.manifest import (
    CONFIG_FILE,
    FORMAT,
    GOLDEN_FILE,
    MANIFEST_FILE,
    README_FILE,
    FileEntry,
    Golden,
    GoldenExample,
    Manifest,
    port_entries,
)
from export.readme import readme
from export.runtime_steps import writer_sessions
from export.session import open_session
from export.verifier import VERIFIER_FILE, verifier
from models.errors import BadInput
from models.files import digest_files, inside, write_bytes, write_json, write_text
from models.generation_settings import GENERATION_CONFIG, GENERATION_FILE, Generation, written_generation
from models.provenance import Provenance
from models.reading import Arrays, Reader
from models.sentence_transformers import write_modules
from models.shape import ModelShape

if TYPE_CHECKING:
    from export.graph_file import GraphFile
    from models.checkpoint import Checkpoint

_PACKAGES: Final = ("compress-transformers", "onnx", "onnxruntime", "onnxruntime-extensions", "torch")


@final
@dataclass(frozen=True, slots=True)
class Contents:
    """Everything a bundle is written from; `examples` are inputs for `golden.json`, each a batch of one. `projection`
    is what `Checkpoint.projection` returns, `config` what `Checkpoint.loader_config` does. Of a model that writes,
    `generation` says how. `page` are the files of a page for browsers. `source` is what the model was made from.
    """

    shape: ModelShape
    reader: Reader
    graph: GraphFile
    examples: Sequence[Arrays]
    parameters: int
    lineage: Sequence[Mapping[str, Any]] = ()
    measurements: Mapping[str, Any] | None = None
    projection: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    generation: Generation | None = None
    config: Mapping[str, Any] | None = None
    page: Mapping[str, bytes] = field(default_factory=dict)
    source: Provenance = Provenance()

    @staticmethod
    def of(checkpoint: Checkpoint, graph: GraphFile, examples: Sequence[Arrays]) -> Contents:
        """Return what a bundle of this checkpoint and its graph holds."""
        return Contents(
            shape=checkpoint.shape,
            reader=checkpoint.reader,
            graph=graph,
            examples=examples,
            parameters=checkpoint.parameters,
            projection=checkpoint.projection(),
            generation=checkpoint.generation,
            config=checkpoint.loader_config,
            source=checkpoint.source,
        )


def write_bundle(directory: Path, contents: Contents) -> Bundle:
    """Write a bundle into an existing, empty directory and return it opened.

    Raises:
        BadInput: the directory is not empty.
        BadFile: the runtime does not read the model.
        Mismatch: the model gives values that are not finite.
    """
    if any(directory.iterdir()):
        raise BadInput("a bundle is written into an empty directory", where=str(directory))
    graph, shape = contents.graph, contents.shape
    for name, data in {graph.name: graph.data, **graph.extra, **contents.page}.items():
        write_bytes(inside(directory, name), data)
    contents.reader.shipped(token_types=shape.type_vocab_size > 0).save(directory)
    write_bytes(directory / VERIFIER_FILE, verifier())
    if contents.generation is not None:
        write_json(directory / GENERATION_FILE, contents.generation.to_json())
        write_json(directory / GENERATION_CONFIG, written_generation(contents.generation, pad=shape.pad_token_id))
    session = open_session(directory / graph.name, threads=1, texts=graph.takes_texts)
    manifest = Manifest(
        format=FORMAT,
        target=graph.target.name,
        opset=graph.target.opset,
        model=graph.name,
        files={},
        inputs=port_entries(session.get_inputs()),
        outputs=port_entries(session.get_outputs()),
        parameters=contents.parameters,
        int8={path: form.value for path, form in shape.int8},
        shape=shape.to_json(),
        lineage=[dict(step) for step in contents.lineage],
        measurements=dict(contents.measurements or {}),
        versions=_versions(),
        encoder=graph.encoder,
        lengths=list(graph.target.lengths),
    )
    write_json(directory / CONFIG_FILE, loader_config(shape, None if manifest.stands_alone else contents.config))
    if not manifest.stands_alone:
        write_modules(directory, shape, contents.projection)
    examples = _golden_examples(directory, session, contents, searches=manifest.searches)
    golden = Golden(format=FORMAT, tolerance=tolerance_of(shape), examples=examples)
    write_json(directory / GOLDEN_FILE, golden.model_dump(exclude_defaults=True))
    present = {file.name for file in directory.iterdir()} | {MANIFEST_FILE}
    card = Card(manifest, shape, task_of(shape), present)
    write_text(directory / README_FILE, readme(card, metadata=contents.source.metadata))
    listed = {name: FileEntry(sha256=sha, bytes=size) for name, (sha, size) in digest_files(directory).items()}
    manifest = manifest.model_copy(update={"files": listed})
    write_json(directory / MANIFEST_FILE, manifest.model_dump(exclude_defaults=True))
    return Bundle.open(directory)


def _golden_examples(
    directory: Path, session: onnxruntime.InferenceSession, contents: Contents, *, searches: bool
) -> list[GoldenExample]:
    shape, encoder = contents.shape, contents.graph.encoder
    if shape.output is None:
        return [answered_example(session, example) for example in contents.examples]
    if contents.generation is None:
        raise BadInput("nothing says how the model writes", where=f"a {shape.family} model")
    sources = [example["input_ids"][0].tolist() for example in contents.examples]
    if searches:
        search = GraphSearch(shape, contents.generation, session)
        return [searched_example(search, source) for source in sources]
    sessions = writer_sessions(
        shape, directory / contents.graph.name, None if encoder is None else directory / encoder, threads=1
    )
    return [written_example(sessions, source, contents.generation) for source in sources]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
