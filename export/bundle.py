"""The directory that a device gets: model, tokenizer, labels, and what is needed to check that it is still right."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.card import Card
from export.golden_answers import Answering, answered_example, answering_gap, tolerance_of
from export.golden_writing import searched_example, searching_gap, writing_gap, written_example
from export.graph_search import FIX, GraphSearch, searches
from export.lengths import Buckets
from export.loader_config import loader_config
from export.manifest import (
    FORMAT,
    GOLDEN_FILE,
    MANIFEST_FILE,
    README_FILE,
    FileEntry,
    Golden,
    GoldenExample,
    Manifest,
    PortEntry,
    read_record,
)
from export.page import is_of_page
from export.readme import readme
from export.runtime_steps import WriterSessions, writer_sessions
from export.session import Floats, open_session, run
from export.text.feeding import row_texts, texts_to_feed
from export.verifier import VERIFIER_FILE, verifier
from export.whole_graph import check_weights_inside
from models.errors import BadFile, BadInput
from models.files import check_no_links, digest_files, inside, read_object, write_bytes, write_json, write_text
from models.generation_settings import GENERATION_CONFIG, GENERATION_FILE, Generation, written_generation
from models.progress import Progress, silent
from models.reading import Arrays, Reader, load_reader, tokenizer_of
from models.sentence_transformers import write_modules
from models.shape import ModelShape
from models.task import THRESHOLD, Answer, Given, Task
from models.tasks import task_named
from models.tokenizing import Tokenizing

if TYPE_CHECKING:  # they load torch, which a device does not have
    from export.graph_file import GraphFile
    from models.checkpoint import Checkpoint
    from models.encoded import Encoded

CONFIG_FILE: Final = "config.json"
_PACKAGES: Final = ("compress-transformers", "onnx", "onnxruntime", "onnxruntime-extensions", "torch")


@final
@dataclass(frozen=True, slots=True)
class Contents:
    """Everything a bundle is written from; `examples` are inputs for `golden.json`, each a batch of one. `projection`
    is what `Checkpoint.projection` returns, `config` what `Checkpoint.loader_config` does. Of a model that writes,
    `generation` says how. `page` are the files of a page for browsers.
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
        )


@final
@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. Needs ONNX Runtime and tokenizers, not PyTorch."""

    directory: Path
    manifest: Manifest

    @staticmethod
    def open(directory: Path) -> Bundle:
        """Return the bundle in a directory, its manifest read and nothing else.

        Raises:
            BadFile: there is no valid manifest, the model is not in its list of files, or a file is a link or has a
                name that leads elsewhere.
        """
        manifest = read_record(Manifest, directory / MANIFEST_FILE)
        for model in (manifest.model, *([] if manifest.encoder is None else [manifest.encoder])):
            if model not in manifest.files:
                raise BadFile(f"the model {model!r} is not among its files", where=str(directory / MANIFEST_FILE))
        check_no_links(directory, {*manifest.files, *(file.name for file in directory.iterdir() if file.is_symlink())})
        return Bundle(directory, manifest)

    @property
    def model(self) -> Path:
        """Return the path of the model file; BadFile where it keeps weights elsewhere."""
        return self._graph(self.manifest.model)

    @property
    def encoder(self) -> Path | None:
        """Return the path of the encoder of a model that writes behind one, as `model` does."""
        return None if self.manifest.encoder is None else self._graph(self.manifest.encoder)

    @property
    def bytes(self) -> int:
        """Return the size of all files on disk, the manifest included; a page and its runtime are not the model's."""
        listed = sum(entry.bytes for name, entry in self.manifest.files.items() if not is_of_page(name))
        return listed + (self.directory / MANIFEST_FILE).stat().st_size

    @property
    def parameters(self) -> int:
        """Return the number of weights."""
        return self.manifest.parameters

    @cached_property
    def shape(self) -> ModelShape:
        """Return every size of the network."""
        return ModelShape.from_json(self.manifest.shape)

    @cached_property
    def reader(self) -> Reader:
        """Return what the model reads with."""
        return load_reader(self.directory, self.shape)

    @property
    def tokenizing(self) -> Tokenizing:
        """Return the tokenizer; BadInput where the model reads something else than texts."""
        return tokenizer_of(self.reader)

    @property
    def card(self) -> Card:
        """Return what the bundle's page is made from."""
        return Card(self.manifest, self.shape, _task(self.shape), {*self.manifest.files, MANIFEST_FILE})

    @property
    def takes_texts(self) -> bool:
        """Return whether the model's graph has its tokenizer in it."""
        return self.manifest.takes_texts

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """Return a session on one thread."""
        return open_session(self.model, threads=1, texts=self.takes_texts)

    @cached_property
    def buckets(self) -> Buckets:
        """Return the sessions for texts of the manifest's lengths."""
        return Buckets(self.model, self.manifest.lengths)

    @cached_property
    def generation(self) -> Generation:
        """Return how the model writes; BadFile where nothing says it."""
        return Generation.from_json(read_object(self.directory / GENERATION_FILE))

    @property
    def searches(self) -> bool:
        """Return whether the model writes whole texts by itself, its search being in its graph."""
        return searches({port.name for port in self.manifest.outputs})

    def search(self, *, threads: int = 1) -> GraphSearch:
        """Return the search in the graph; BadFile where the runtime does not read it."""
        return GraphSearch.open(self.shape, self.generation, self.model, threads=threads)

    def writer(self, *, threads: int = 1) -> WriterSessions:
        """Return what the model writes with.

        Raises:
            BadInput: it writes nothing.
            BadFile: the runtime does not read its graphs.
        """
        if self.shape.output is None:
            raise BadInput("the model writes nothing", where=str(self.directory), fix="Use `Bundle.predict`.")
        if self.searches:
            raise BadInput("the search is in the graph, which takes no steps", where=str(self.directory), fix=FIX)
        if (self.manifest.encoder is None) != (self.shape.decoder is None):
            raise BadFile("the encoder and the model's shape do not fit together", where=str(self.directory))
        return writer_sessions(self.shape, self.model, self.encoder, threads=threads)

    def golden_gap(self, examples: Sequence[GoldenExample]) -> list[float]:
        """Return how far what the model gives is from each example.

        Raises:
            BadFile: an example does not fit the model.
        """
        if self.shape.output is None:
            gaps = ([answering_gap(answer, example) for answer in self._answering(example)] for example in examples)
            return [float(np.max(each)) for each in gaps]  # NaN if one is
        if self.searches:
            search = self.search()
            return [searching_gap(search, example) for example in examples]
        sessions = self.writer()
        return [writing_gap(sessions, example, self.generation) for example in examples]

    def save(self, directory: Path) -> None:
        """Copy the bundle's files into an existing directory."""
        for name in (*self.manifest.files, MANIFEST_FILE):
            target = inside(directory, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inside(self.directory, name), target)

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, threshold: float = THRESHOLD
    ) -> list[Answer]:
        """Return one answer per text, or per text and its pair; longer texts are cut to what the positions allow, or
        read in windows where the task says so. To a model of images, a text is the path of one. What may be left out
        of an answer, an object or one of several labels, is named from the probability `threshold` on.

        Raises:
            BadInput: the model has no head, the texts cannot be encoded, or a file holds no image.
            Unsupported: the head is for a task that is not known.
        """
        task = _task(self.shape)
        if task is None:
            fix = "Write with `compress.Generator`." if self.shape.output is not None else None
            raise BadInput("the model has no head to answer with", where=str(self.directory), fix=fix)
        longest = self.shape.usable_positions
        seconds: Sequence[str | None] = [None] * len(texts) if pairs is None else pairs
        if self.takes_texts:
            rows = [texts_to_feed(text, pair) for text, pair in zip(texts, seconds, strict=True)]
            return [
                task.answer([self._logits(row)], self.shape.labels, Given(text, pair, (), threshold))
                for row, text, pair in zip(rows, texts, seconds, strict=True)
            ]
        read = self.reader.read(texts, pairs, max_length=longest, shared=task.shared)
        return [
            task.answer(
                [self._logits(one.inputs) for one in windows],
                self.shape.labels,
                Given(text, pair, windows, threshold),
            )
            for text, pair, windows in zip(texts, seconds, read, strict=True)
        ]

    def logits(self, data: Encoded, *, progress: Progress = silent) -> Floats:
        """Return the logits (answers, labels) of an encoded data set, one row at a time as a device runs it."""
        report = progress("Running the bundle")
        rows = []
        for row in range(len(data)):
            rows.append(self._logits(self.arrays(data, row)))
            report(row + 1, len(data))
        return np.concatenate([np.zeros((0, self.shape.outputs), dtype=np.float32), *rows])

    def arrays(self, data: Encoded, row: int) -> Arrays:
        """Return what the model is called with for a row of a data set.

        Raises:
            BadInput: it takes texts, and the rows have none.
        """
        if self.takes_texts:
            return row_texts(data, row)
        return {name: value.numpy() for name, value in data.batch(np.array([row])).inputs.items()}

    def _graph(self, name: str) -> Path:
        path = inside(self.directory, name)
        check_weights_inside(path)
        return path

    def _logits(self, inputs: Arrays) -> Floats:
        """Return the logits (answers, labels) of one row."""
        given = self.buckets.run(inputs) if self.manifest.lengths else run(self.session, inputs)
        return given.reshape(-1, self.shape.outputs)

    def _answering(self, example: GoldenExample) -> list[Answering]:
        """Return all that must give an example's outputs: the model, and at each length that holds the text."""
        tokens = len(example.input_ids)
        held = [length for length in self.manifest.lengths if length >= tokens]
        return [partial(run, self.session), *(partial(self.buckets.run_at, length) for length in held)]


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
    write_json(directory / CONFIG_FILE, loader_config(shape, contents.config))
    if not graph.takes_texts:  # sentence-transformers tokenizes itself
        write_modules(directory, shape, contents.projection)
    if contents.generation is not None:
        write_json(directory / GENERATION_FILE, contents.generation.to_json())
        write_json(directory / GENERATION_CONFIG, written_generation(contents.generation, pad=shape.pad_token_id))
    session = open_session(directory / graph.name, threads=1, texts=graph.takes_texts)
    golden = Golden(
        format=FORMAT, tolerance=tolerance_of(shape), examples=_golden_examples(directory, session, contents)
    )
    write_json(directory / GOLDEN_FILE, golden.model_dump(exclude_defaults=True))
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
    present = {file.name for file in directory.iterdir()} | {MANIFEST_FILE}
    write_text(directory / README_FILE, readme(Card(manifest, shape, _task(shape), present)))
    listed = {name: FileEntry(sha256=sha, bytes=size) for name, (sha, size) in digest_files(directory).items()}
    manifest = manifest.model_copy(update={"files": listed})
    write_json(directory / MANIFEST_FILE, manifest.model_dump(exclude_defaults=True))
    return Bundle.open(directory)


def port_entries(ports: Sequence[Any]) -> list[PortEntry]:
    """Return inputs or outputs of a session as the manifest writes them."""
    return [
        PortEntry(name=port.name, dtype=port.type.removeprefix("tensor(").removesuffix(")"), shape=list(port.shape))
        for port in ports
    ]


def _golden_examples(directory: Path, session: onnxruntime.InferenceSession, contents: Contents) -> list[GoldenExample]:
    shape, encoder = contents.shape, contents.graph.encoder
    if shape.output is None:
        return [answered_example(session, example) for example in contents.examples]
    if contents.generation is None:
        raise BadInput("nothing says how the model writes", where=f"a {shape.family} model")
    sources = [example["input_ids"][0].tolist() for example in contents.examples]
    if searches({port.name for port in session.get_outputs()}):
        search = GraphSearch(shape, contents.generation, session)
        return [searched_example(search, source) for source in sources]
    sessions = writer_sessions(
        shape, directory / contents.graph.name, None if encoder is None else directory / encoder, threads=1
    )
    return [written_example(sessions, source, contents.generation) for source in sources]


def _task(shape: ModelShape) -> Task | None:
    return None if shape.head is None else task_named(shape.head.task)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
