"""What heads and neurons of a model that writes cost in milliseconds of a whole text, on the graphs that write it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch

from compress.machine import calls, timed_rows
from compress.pruning.latency_table import (
    QUANTILES,
    Clock,
    Timed,
    attention_kind,
    copies_of,
    differences,
    in_rounds,
    interpolated,
    sampled,
)
from compress.pruning.search import Costs, counts
from compress.quantization.schemes import forms_of, linear_paths, quantize, table_paths
from compress.statistics import round_ratios
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.latency import compare
from export.runtime_steps import RuntimeSteps, WriterSessions, writer_sessions
from export.target import CPU
from models.checkpoint import Checkpoint
from models.content import Sourced
from models.encoded import Encoded
from models.errors import BadInput
from models.generation import Prompts, generate
from models.generation_settings import Generation
from models.kinds import Int8Form
from models.network import Network
from models.progress import Progress
from models.shape import ModelShape
from models.sublayers import Part, Sublayer, layers_by_path, sublayers_of, with_units
from models.token_scores import Ids, Scores

FIXED = "fixed"
WORDS = 64  # rows of the word tables in the graphs that units are measured in
CHOSEN = 4  # words that are written to time one: at the first, beams begin
CONFIRM_TEXTS = 8  # a text is many calls
CONFIRM_ROUNDS = 6


class Text(NamedTuple):
    """How many tokens of a source are read, with how many tokens of its own a text begins, and how many are written."""

    read: int
    begun: int
    written: int


@final
@dataclass(frozen=True, slots=True)
class TextClock:
    """How the time of a text is measured: of texts as long as those of the data, with the beams of the model."""

    clock: Clock
    generation: Generation

    @staticmethod
    def of(model: Checkpoint, clock: Clock) -> TextClock:
        """Return what measures texts of a model where `clock` measures, and remembers them there.

        Raises:
            BadInput: nothing says how the model writes.
        """
        if model.generation is None:
            raise BadInput("nothing says how the model writes", where="generation.json")
        return TextClock(clock, replace(model.generation, sampling=None))

    def costs(self, shape: ModelShape, *, ffn_multiple: int) -> Costs:
        """Return the costs in ms of a text, mean over typical lengths, of the fixed parts and of every kept count of
        each sublayer: of one that reads once, of one that writes for every token.
        """
        texts = texts_of(self.clock.data)
        given = {
            "table": shape.to_json(),
            "texts": [list(text) for text in texts],
            "multiple": ffn_multiple,
            "beams": self.generation.beams,
        }

        def measured() -> dict[str, Any]:
            graphs = _graphs(shape, ffn_multiple)
            shapes = {name: _in_int8(graph) if self.clock.int8 else graph for name, (graph, _) in graphs.items()}
            times = _times(shapes, texts, self.generation.beams, self.clock.threads, self.clock.progress)
            return {name: [times[name], copies] for name, (_, copies) in graphs.items()}

        return _costs(shape, self.clock.remembered(given, measured), ffn_multiple)

    def words(self, shapes: Mapping[str, ModelShape]) -> dict[str, float]:
        """Return ms of a word in the middle of a text, mean over typical lengths, by a network of each shape: a
        whole one, as what is bound by memory is not told by a part.
        """
        texts = texts_of(self.clock.data)
        given = {
            "words": {name: shape.to_json() for name, shape in shapes.items()},
            "texts": [list(text) for text in texts],
            "beams": self.generation.beams,
        }

        def measured() -> dict[str, Any]:
            work = {}
            for name, shape in shapes.items():
                loaded = _loaded(shape, _drawn(shape), self.clock.threads)
                steps = (partial(_word_ns, loaded, text, self.generation.beams) for text in texts)
                work[name] = [Timed(step, 1 / len(texts)) for step in steps]
            return in_rounds(work, self.clock.progress, what="a word")

        return {name: float(ms) for name, ms in self.clock.remembered(given, measured).items()}

    def speedup(self, parent: Checkpoint, candidate: Checkpoint) -> float:
        """Return how many times faster the candidate's real graphs write than its parent's, in processes of their own.

        Both write equally many tokens: a model that was cut and not trained yet may find no end.
        """
        data = self.clock.data
        timed = calls(data, timed_rows(data, CONFIRM_TEXTS))
        many = max(1, int(np.median(data.lengths)))
        given = {
            "parent": parent.shape.to_json(),
            "candidate": candidate.shape.to_json(),
            "texts": [list(call.arrays["input_ids"].shape) for call in timed],
            "written": many,
            "generation": self.generation.to_json(),
        }

        def measured() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                before, after = (Path(folder) / name for name in ("parent", "candidate"))
                self._bundle(parent, before, many)
                self._bundle(candidate, after, many)
                comparison = compare(
                    before,
                    after,
                    timed,
                    threads=self.clock.threads,
                    rounds=CONFIRM_ROUNDS,
                    progress=self.clock.progress,
                )
            ratios = round_ratios(comparison.baseline.rounds, comparison.candidate.rounds)
            return {"speedup": float(np.median(ratios))}

        return float(self.clock.remembered(given, measured)["speedup"])

    def _bundle(self, model: Checkpoint, directory: Path, many: int) -> None:
        """Write the bundle that a model would be, and that writes so many tokens."""
        directory.mkdir()
        exactly = replace(model, generation=replace(self.generation, min_tokens=many, max_tokens=many))
        deployed = quantize(exactly, forms_of(exactly)) if self.clock.int8 else exactly
        write_bundle(directory, Contents.of(deployed, graph_file(deployed.network(), CPU), []))


def texts_of(data: Encoded) -> list[Text]:
    """Return texts of typical lengths: behind a source as long as what is expected, else a half that goes on."""
    written = [max(1, int(length)) for length in np.quantile(data.lengths, QUANTILES)]
    if isinstance(data.content, Sourced):
        read = [max(1, int(length)) for length in np.quantile(data.content.read_lengths, QUANTILES)]
        return [Text(source, 1, length) for source, length in zip(read, written, strict=True)]
    begun = [(length + 1) // 2 for length in written]
    return [Text(0, half, max(1, length - half)) for half, length in zip(begun, written, strict=True)]


def _in_int8(shape: ModelShape) -> ModelShape:
    """Return the shape with every linear layer and table in int8, as `quantize` does by default."""
    linear = dict.fromkeys(linear_paths(shape), Int8Form.DYNAMIC)
    return shape.with_int8(linear | dict.fromkeys(table_paths(shape), Int8Form.TABLE))


def _graphs(shape: ModelShape, ffn_multiple: int) -> dict[str, tuple[ModelShape, int]]:
    """Return the networks that are timed, each with the number of layers that have units: the model without any, and
    one for every kind of sublayer and sampled count.
    """
    graphs = {FIXED: (with_units(shape, dict.fromkeys((one.path for one in sublayers_of(shape)), 0)), 1)}
    for sublayer in sublayers_of(shape):
        for count in sampled(counts(sublayer, ffn_multiple)):
            graphs[f"{_kind(shape, sublayer)}/{count}"] = _copied(shape, sublayer, count)
    return graphs


def _kind(shape: ModelShape, sublayer: Sublayer) -> str:
    """Return the kind of a sublayer: units of another kind cost something else."""
    of_heads = f", {attention_kind(layers_by_path(shape)[sublayer.layer])}, {sublayer.width}"
    return f"{sublayer.stack}.{sublayer.part.value}{'' if sublayer.part is Part.FFN else of_heads}"


def _copied(shape: ModelShape, sublayer: Sublayer, count: int) -> tuple[ModelShape, int]:
    """Return a network of copies of a sublayer's layer, with so many units there and else none, and how many copies;
    where there is a second stack, it is one layer without units.
    """
    layer, decoder = layers_by_path(shape)[sublayer.layer], shape.decoder
    copies = copies_of(shape, [layer])
    stacks = {"layers": shape.layers[:1], "decoder.layers": () if decoder is None else decoder.layers[:1]}
    stacks[sublayer.stack] = (layer,) * copies
    if decoder is not None:
        own = None if decoder.vocab_size is None else min(decoder.vocab_size, WORDS)
        decoder = replace(decoder, layers=stacks["decoder.layers"], vocab_size=own)
    few = replace(
        shape, vocab_size=min(shape.vocab_size, WORDS), pad_token_id=0, layers=stacks["layers"], decoder=decoder
    )
    alike = {one.path for one in sublayers_of(few) if (one.stack, one.part) == (sublayer.stack, sublayer.part)}
    return with_units(few, {one.path: count if one.path in alike else 0 for one in sublayers_of(few)}), copies


def _times(
    shapes: Mapping[str, ModelShape], texts: Sequence[Text], beams: int, threads: int, progress: Progress
) -> dict[str, float]:
    """Return ms of a text by each network, the mean over texts: what reads and begins once, and a word for every token
    behind the first.
    """
    work, share = {}, 1 / len(texts)
    for name, shape in shapes.items():
        loaded = _loaded(shape, Network(shape), threads)
        begins = [Timed(partial(_begin_ns, loaded, text), share) for text in texts]
        words = [Timed(partial(_word_ns, loaded, text, beams), share * (text.written - 1)) for text in texts]
        work[name] = [*begins, *words]
    return in_rounds(work, progress)


def _loaded(shape: ModelShape, network: Network, threads: int) -> WriterSessions:
    graph = graph_file(network.eval(), CPU)
    return writer_sessions(shape, graph.data, graph.encoder_data, threads=threads)


def _drawn(shape: ModelShape) -> Network:
    """Return a network with drawn levels: a file holds equal weights once, and memory would be read less."""
    network, generator = Network(shape), torch.Generator().manual_seed(0)
    for levels in network.buffers():
        if not levels.is_floating_point():
            levels.random_(generator=generator)
    return network


def _begin_ns(loaded: WriterSessions, text: Text) -> int:
    began = time.perf_counter_ns()
    _Watched(loaded, text).begin([[0] * text.begun])
    return time.perf_counter_ns() - began


def _word_ns(loaded: WriterSessions, text: Text, beams: int) -> int:
    """Return the time of a step in the middle of a text, the choice of its words included."""
    watched = _Watched(loaded, text)
    before = min(text.begun + text.written // 2, watched.positions - CHOSEN)
    generate(watched, [[0] * before], Generation(beams=beams, min_tokens=CHOSEN, max_tokens=CHOSEN))
    return watched.asked[-1] - watched.asked[-2]


@final
class _Watched:
    """Steps of writing one text, which note when each is asked for."""

    def __init__(self, loaded: WriterSessions, text: Text) -> None:
        self._steps = RuntimeSteps(loaded, None if loaded.encoder is None else [[0] * text.read])
        self.asked: list[int] = []

    @property
    def positions(self) -> int:
        """Return how many tokens a text may have."""
        return self._steps.positions

    def begin(self, prompts: Prompts) -> Scores:
        """Return logits of the word behind each prompt."""
        return self._steps.begin(prompts)

    def advance(self, tokens: Ids, order: Ids) -> Scores:
        """Return logits of the word behind each of the tokens."""
        self.asked.append(time.perf_counter_ns())
        return self._steps.advance(tokens, order)


def _costs(shape: ModelShape, measured: Mapping[str, Any], ffn_multiple: int) -> Costs:
    tables: dict[str, dict[str, tuple[float, int]]] = {}
    for name, (ms, copies) in measured.items():
        kind, _, count = name.rpartition("/")
        tables.setdefault(kind, {})[count] = (ms, copies)
    known = {kind: differences(entries) for kind, entries in tables.items() if kind}
    units = {
        sublayer.path: interpolated(known[_kind(shape, sublayer)], counts(sublayer, ffn_multiple))
        for sublayer in sublayers_of(shape)
    }
    return Costs(float(measured[FIXED][0]), units)
