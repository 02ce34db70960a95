"""The directory that a device gets: model, tokenizer, labels, and what is needed to check that it is still right."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import onnxruntime

from export.card import Card
from export.golden_answers import Answering, answering_gap
from export.golden_writing import searching_gap, writing_gap
from export.graph_search import FIX, GraphSearch
from export.lengths import Buckets
from export.manifest import MANIFEST_FILE, GoldenExample, Manifest, is_of_page, read_record
from export.runtime_steps import WriterSessions, writer_sessions
from export.session import Floats, open_session, run
from export.text.feeding import row_texts, texts_to_feed
from export.whole_graph import check_weights_inside
from models.errors import BadFile, BadInput
from models.files import check_no_links, inside, read_object
from models.generation_settings import GENERATION_FILE, Generation
from models.progress import Progress, silent
from models.reading import Arrays, Reader, load_reader, tokenizer_of
from models.shape import ModelShape
from models.task import THRESHOLD, Answer, Given, Task
from models.tasks import task_named
from models.tokenizing import Tokenizing

if TYPE_CHECKING:  # it loads torch, which a device does not have
    from models.encoded import Encoded


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
        for model in manifest.models:
            if model not in manifest.files:
                raise BadFile(f"the model {model!r} is not among its files", where=str(directory / MANIFEST_FILE))
        check_no_links(directory, {*manifest.files, *(file.name for file in directory.iterdir() if file.is_symlink())})
        return Bundle(directory, manifest)

    @cached_property
    def model(self) -> Path:
        """Return the path of the model file; BadFile where it keeps weights elsewhere."""
        return self._graph(self.manifest.model)

    @cached_property
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
        return Card(self.manifest, self.shape, task_of(self.shape), {*self.manifest.files, MANIFEST_FILE})

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
        return self.manifest.searches

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
        task = task_of(self.shape)
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
        return data.single(row)

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


def task_of(shape: ModelShape) -> Task | None:
    """Return the task of a model's head; None where it has none."""
    return None if shape.head is None else task_named(shape.head.task)
