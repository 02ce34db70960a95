"""What heads and neurons cost in milliseconds: measured in ONNX Runtime on emitted graphs, and kept on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import onnxruntime

from compress.machine import calls, environment, timed_rows
from compress.pruning.search import CostOf, Costs, counts, widths
from compress.quantization.schemes import forms_of, linear_paths, quantize
from compress.statistics import round_ratios
from export.latency import compare
from export.lower import lower
from export.session import Arrays, feeds, open_session
from export.target import CPU
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadFile
from models.files import digest_of, read_object, write_json
from models.kinds import Int8Form
from models.network import Network
from models.progress import Progress, silent
from models.shape import EVERY_TOKEN, LayerShape, ModelShape
from models.sublayers import sublayers_of

FORMAT = 6
QUANTILES = (0.3, 0.5, 0.7)  # of the texts' lengths: around the median, which the speed gate compares
SAMPLED = 13  # kept counts that are measured per sublayer; between them costs are interpolated
COPIES = 4  # layers of the measured graphs: one alone is too fast beside the cost of a call
COPIED_BYTES = 64 << 20  # of weights in one graph
ROUNDS = 25
LEAST_ROUNDS = 5
SECONDS = 20.0
WORDS = 64  # rows of the word table in the measured graphs
CONFIRM_TEXTS = 32
CONFIRM_ROUNDS = 48  # some 6 seconds, of which a slow moment of the machine is a small part


@final
@dataclass(frozen=True, slots=True)
class Clock:
    """How latencies are measured: on the lengths of `data`, with `threads` of ONNX Runtime, in int8 or in float;
    remembered in `cache`.

    What was measured once on a machine is not measured again, so that a run which was killed chooses the same plan.
    """

    data: Encoded
    threads: int
    cache: Path
    int8: bool
    progress: Progress = silent

    def costs(self, shape: ModelShape, *, ffn_multiple: int) -> Costs:
        """Return the costs in ms, mean over typical lengths, of the fixed parts and of every kept count per layer."""
        plain = replace(shape, vocab_size=min(shape.vocab_size, WORDS), pad_token_id=0)
        lengths = sorted({max(1, int(value)) for value in np.quantile(self.data.lengths, QUANTILES)})
        given = {
            "table": plain.to_json() | {"readers": str(shape.readers)},
            "lengths": lengths,
            "multiple": ffn_multiple,
        }

        def measured() -> dict[str, Any]:
            graphs = _graphs(plain, ffn_multiple)
            shapes = {name: in_int8(graph) if self.int8 else graph for name, (graph, _) in graphs.items()}
            times = _times(shapes, lengths, self.threads, self.progress)
            return _per_layer(times, {name: copies for name, (_, copies) in graphs.items()})

        kept = self.remembered(given, measured)
        return _costs(shape, kept, ffn_multiple)

    def speedup(self, parent: Checkpoint, candidate: Checkpoint) -> float:
        """Return how many times faster the candidate's real graph is than its parent's, in processes of their own."""
        timed = calls(self.data, timed_rows(self.data, CONFIRM_TEXTS))
        given = {
            "parent": parent.shape.to_json(),
            "candidate": candidate.shape.to_json(),
            "lengths": [call.tokens for call in timed],
        }

        def measured() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                before, after = Path(folder) / "parent.onnx", Path(folder) / "candidate.onnx"
                before.write_bytes(self._graph(parent))
                after.write_bytes(self._graph(candidate))
                comparison = compare(
                    before, after, timed, threads=self.threads, rounds=CONFIRM_ROUNDS, progress=self.progress
                )
            # The median over rounds: a moment in which the machine is slow spoils a round, not the whole.
            ratios = round_ratios(comparison.baseline.rounds, comparison.candidate.rounds)
            return {"speedup": float(np.median(ratios))}

        return float(self.remembered(given, measured)["speedup"])

    def _graph(self, checkpoint: Checkpoint) -> bytes:
        deployed = quantize(checkpoint, forms_of(checkpoint)) if self.int8 else checkpoint
        graph: bytes = lower(deployed.network(), CPU).SerializeToString()
        return graph

    def remembered(self, given: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `measure` found for what is `given`, from the cache where that was measured here before."""
        machine = environment(self.threads)
        key = {
            "format": FORMAT,
            "given": given,
            "int8": self.int8,
            "cpu": machine.cpu,
            "cores": machine.cores,
            "threads": self.threads,
            "onnxruntime": machine.onnxruntime,
        }
        path = self.cache / f"latency-{digest_of(key)[:24]}.json"
        try:
            kept: dict[str, Any] = read_object(path)["measured"]
        except (BadFile, KeyError):
            kept = measure()
            write_json(path, {"key": key, "measured": kept})
        return kept


def _places(shape: ModelShape) -> list[str]:
    """Return where each layer stands: before a head that reads few tokens, the last one computes no others."""
    last = len(shape.layers) - 1
    return ["last" if index == last and shape.readers != EVERY_TOKEN else "inner" for index in range(len(shape.layers))]


def attention_kind(layer: LayerShape) -> str:
    """Return the kind of a layer's heads: those of another kind cost something else."""
    return f"{layer.head_size}, {layer.attention}" + ("" if layer.rotary is None else ", turned")


def sampled(counts: Sequence[int]) -> list[int]:
    """Return those of the kept counts that are measured, the first and the last included."""
    picked = np.unique(np.linspace(0, len(counts) - 1, min(SAMPLED, len(counts))).round().astype(int))
    return [counts[index] for index in picked]


def in_int8(shape: ModelShape) -> ModelShape:
    """Return the shape with every linear layer in dynamic int8, as `quantize` does by default."""
    return shape.with_int8(dict.fromkeys(linear_paths(shape), Int8Form.DYNAMIC))


def _graphs(shape: ModelShape, ffn_multiple: int) -> dict[str, tuple[ModelShape, int]]:
    """Return the networks that are timed, each with its number of layers: one that keeps nothing, and one for every
    place, kind of heads and sampled count.
    """
    empty = tuple(replace(layer, heads=0, ffn=0) for layer in shape.layers)
    graphs = {"fixed": (replace(shape, layers=empty), 1)}
    for place, layer in zip(_places(shape), shape.layers, strict=True):
        for heads in sampled(range(layer.heads + 1)):
            graphs[f"heads/{place}/{attention_kind(layer)}/{heads}"] = _layers(
                shape, place, replace(layer, heads=heads, ffn=0)
            )
        for ffn in sampled(widths(layer.ffn, ffn_multiple)):
            graphs[f"neurons/{place}/{ffn}"] = _layers(shape, place, replace(layer, heads=0, ffn=ffn))
    return graphs


def _per_layer(times: Mapping[str, float], copies: Mapping[str, int]) -> dict[str, Any]:
    """Return the fixed cost, and for each sublayer, place and kind of heads the costs of the sampled counts.

    Graphs of one place differ in the number of their layers, so each is compared with an empty one of as many.
    """
    result: dict[str, Any] = {"fixed": times["fixed"], "heads": {}, "neurons": {}}
    for name, number in copies.items():
        kind, _, rest = name.partition("/")
        if rest:
            table, _, count = rest.rpartition("/")
            result[kind].setdefault(table, {})[count] = (times[name], number)
    for kind in ("heads", "neurons"):
        result[kind] = {table: differences(entries) for table, entries in result[kind].items()}
    return result


def _layers(shape: ModelShape, place: str, layer: LayerShape) -> tuple[ModelShape, int]:
    """Return a network of equal layers, and how many: all tokens in all of them, or one layer that is the last."""
    if place == "last":
        return replace(shape, layers=(layer,)), 1
    copies = copies_of(shape, shape.layers)
    return replace(shape, layers=(layer,) * copies, head=None), copies


def copies_of(shape: ModelShape, layers: Sequence[LayerShape]) -> int:
    """Return how many copies of one of these layers a measured graph has."""
    ffns = 3 if shape.gated else 2
    widest = max(max(4 * layer.attention_width, ffns * layer.ffn) for layer in layers) * shape.hidden_size
    return max(1, min(COPIES, COPIED_BYTES // (4 * max(1, widest))))


def differences(entries: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Return ms per layer over an empty one, by kept count; more units never cost less, which noise may deny."""
    counts = sorted(entries, key=int)
    empty, copies = entries[counts[0]]
    costs = np.maximum.accumulate([max(0.0, (entries[count][0] - empty) / copies) for count in counts])
    return {count: float(cost) for count, cost in zip(counts, costs, strict=True)}


class Timed(NamedTuple):
    """Something that is timed: `ns` does it and returns how long it took, and what is asked for takes `times` of it."""

    ns: Callable[[], int]
    times: float


def in_rounds(
    work: Mapping[str, Sequence[Timed]], progress: Progress, *, what: str = "heads and neurons"
) -> dict[str, float]:
    """Return ms of each piece of work: the medians over interleaved rounds of what it is made of."""
    tick = progress(f"latency of {what}")
    rounds: list[dict[str, list[int]]] = []
    began = time.monotonic()
    while len(rounds) < ROUNDS and (len(rounds) <= LEAST_ROUNDS or time.monotonic() - began < SECONDS):
        names = list(work) if len(rounds) % 2 == 0 else list(work)[::-1]
        rounds.append({name: [one.ns() for one in work[name]] for name in names})
        tick(len(rounds), ROUNDS)
    tick(ROUNDS, ROUNDS)
    result = {}
    for name, parts in work.items():
        medians = np.median([one[name] for one in rounds[1:]], axis=0)  # the first round warms up
        result[name] = float(np.dot(medians, [part.times for part in parts])) / 1e6
    return result


def _times(
    shapes: Mapping[str, ModelShape], lengths: Sequence[int], threads: int, progress: Progress
) -> dict[str, float]:
    """Return ms per call of each graph: the mean over lengths."""
    work = {}
    for name, shape in shapes.items():
        network = Network(shape).eval()
        session = open_session(lower(network, CPU).SerializeToString(), threads=threads)
        arrays = [{port: value.numpy() for port, value in network.sample(length).items()} for length in lengths]
        work[name] = [Timed(partial(_call_ns, session, feeds(session, one)), 1 / len(lengths)) for one in arrays]
    return in_rounds(work, progress)


def _call_ns(session: onnxruntime.InferenceSession, given: Arrays) -> int:
    began = time.perf_counter_ns()
    session.run(None, given)
    return time.perf_counter_ns() - began


def _costs(shape: ModelShape, measured: Mapping[str, Any], ffn_multiple: int) -> Costs:
    places = _places(shape)
    heads = [f"{place}/{attention_kind(layer)}" for place, layer in zip(places, shape.layers, strict=True)]
    tables = [*(measured["heads"][kind] for kind in heads), *(measured["neurons"][place] for place in places)]
    units = {
        sublayer.path: interpolated(table, counts(sublayer, ffn_multiple))
        for sublayer, table in zip(sublayers_of(shape), tables, strict=True)
    }
    return Costs(fixed=float(measured["fixed"]), units=units)


def interpolated(measured: Mapping[str, float], counts: Sequence[int]) -> CostOf:
    """Return the costs of these kept counts, for those of the counts that were measured."""
    known = sorted((int(count), cost) for count, cost in measured.items())
    costs = np.interp(counts, [count for count, _ in known], [cost for _, cost in known])
    return {count: float(cost) for count, cost in zip(counts, costs, strict=True)}
