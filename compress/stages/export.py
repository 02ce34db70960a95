"""Write the ONNX graph of a model, prove it equal to PyTorch on real inputs, and bundle it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from compress.lessons import taught
from compress.settings import ExportSettings
from compress.shortlisting import shortlist_of
from compress.stage import Context, Output, Stage
from compress.text_in import TextIn
from export.contents import Contents, write_bundle
from export.graph_file import GraphFile, graph_file, search_file
from export.graph_search import GraphSearch
from export.lengths import Buckets
from export.page import Given, Page, make_page
from export.parity import Parity, bound_for, compare_answers
from export.parity_writing import compare_searches, compare_writing, words_bound
from export.runtime_steps import WriterSessions, writer_sessions
from export.session import Arrays
from export.shortlist import Shortlist
from export.target import TARGETS, Target
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput, Unsupported
from models.kinds import Int8Form
from models.network import Network
from models.progress import Progress
from models.targets import Writes

PARITY_EXAMPLES = 256
WRITTEN_EXAMPLES = 64  # each has as many steps as tokens
MILDER = 2
SEARCH = "export.search: graph"


@final
@dataclass(frozen=True, slots=True)
class NewBundle:
    """A bundle that is not written yet."""

    contents: Contents

    @property
    def parameters(self) -> int:
        """Return the number of weights."""
        return self.contents.parameters

    def save(self, directory: Path) -> None:
        """Write the bundle's files into an empty directory."""
        write_bundle(directory, self.contents)


def run(parent: Checkpoint, settings: ExportSettings, context: Context) -> Output[NewBundle]:
    """Return the bundle of `parent`.

    Raises:
        BadInput: the model cannot have the lengths, the page for browsers, the search in the graph or the shortlist
            that is asked for, or there are no texts to make a shortlist of.
        Mismatch: ONNX Runtime and PyTorch do not agree on the validation examples, or a page, or the tokenizer in the
            graph, reads a text otherwise.
        Unsupported: the search, or the tokenizer, is to be in the graph, and has no form there.
    """
    network, target = parent.network(), TARGETS[settings.target]
    if settings.lengths:
        _check_lengths(parent, settings.lengths)
        target = target.at_lengths(settings.lengths)
    page = _page(parent, settings, context) if target.page else None
    text_in = TextIn.compared(parent, target, context) if settings.text_in else None
    shortlist = _shortlist(parent, settings, context)
    whole = _search_file(parent, network, target, context, shortlist) if settings.search == "graph" else None
    graph = graph_file(network, target)
    data, tick = context.validation, context.progress
    compared = PARITY_EXAMPLES if network.shape.output is None else WRITTEN_EXAMPLES
    parity = _parity(network, graph, _singles(data, spread(data, compared), tick))
    details: dict[str, Any] = {"parity": asdict(parity)}
    if whole is not None and parent.generation is not None:
        search = GraphSearch.open(parent.shape, parent.generation, whole.data, threads=1)
        examples = _singles(data, spread(data, WRITTEN_EXAMPLES), tick)
        found = compare_searches(search, _sessions(network, graph), examples, shortlist)
        details["same_texts"] = found.same
        if found.shortened is not None:
            details["shortlist"] = {"words": parent.shape.written_words, **found.shortened._asdict()}
    rows = spread(data, settings.golden)
    golden = _with_a_short_one([data.single(row) for row in rows], settings.lengths)
    if text_in is not None:
        golden = text_in.examples(rows)
        whole = text_in.graph_file(network, graph, golden)
        details["text_in"] = asdict(text_in.read_alike)
    contents = Contents.of(parent, whole or graph, golden)
    if page is not None:
        contents = replace(contents, page=page.files)
        details["page"] = {"texts": page.texts, "read_otherwise": list(page.otherwise)}
    return Output(NewBundle(contents), details)


def _shortlist(parent: Checkpoint, settings: ExportSettings, context: Context) -> Shortlist | None:
    """Return the shortlist that is asked for: of what the model learnt to write, else of what the data expects."""
    if settings.shortlist is None:
        return None
    told = taught(context, parent)
    return shortlist_of(parent, context.train if told is None else told, settings.shortlist, seed=context.seed)


def _search_file(
    parent: Checkpoint, network: Network, target: Target, context: Context, shortlist: Shortlist | None
) -> GraphFile:
    """Return the one file of a model that searches in its graph."""
    if parent.generation is None:
        raise BadInput("the model writes nothing, so nothing is searched", where=SEARCH, fix="Leave it out.")
    if context.task.writes is Writes.ON:
        raise Unsupported(
            f"{context.task.name} is judged by what every word costs, which a graph that searches does not tell",
            where=SEARCH,
            fix="Leave the search to the host; `export.graph_file.search_file` makes the file without judging it.",
        )
    return search_file(network, parent.generation, target, shortlist)


def _check_lengths(parent: Checkpoint, lengths: Sequence[int]) -> None:
    shape = parent.shape
    if shape.output is not None or shape.image is not None:
        what = "a model that writes or reads images has no texts to fill up"
        raise BadInput(what, where="export.lengths", fix="Leave it out.")
    if lengths[-1] > shape.usable_positions:
        raise BadInput(
            f"a length of {lengths[-1]} tokens is beyond the {shape.usable_positions} that the model has positions for",
            where="export.lengths",
            fix=f"Give lengths up to {shape.usable_positions}.",
        )
    if any(form is Int8Form.DYNAMIC for _, form in shape.int8):
        raise BadInput(
            "its int8 scales are taken of a whole call, and so of what fills a text up",
            where="export.lengths",
            fix="Quantize with quantize.activations: static, or leave the lengths out.",
        )


def _with_a_short_one(examples: list[Arrays], lengths: Sequence[int]) -> list[Arrays]:
    """Return the examples with one that every length holds: where they have none, the first cut to the shortest."""
    if not lengths or not examples or any(one["input_ids"].shape[1] <= lengths[0] for one in examples):
        return examples
    return [*examples, {name: value[:, : lengths[0]] for name, value in examples[0].items()}]


def _page(parent: Checkpoint, settings: ExportSettings, context: Context) -> Page:
    """Return the page for browsers, which reads the texts of golden examples first."""
    data = context.validation
    rows = [*spread(data, settings.golden), *spread(data, PARITY_EXAMPLES)]
    examples = dict.fromkeys(int(data.examples[row]) if len(data.examples) else row for row in rows)
    table, given = data.table, []
    if table is not None:
        pairs: Sequence[str | None] = [None] * len(table) if table.pairs is None else table.pairs
        given = [Given(table.texts[number], pairs[number]) for number in examples]
    return make_page(parent.shape, parent.reader, context.task, given=given, shown=settings.golden, cache=context.cache)


def _parity(network: Network, graph: GraphFile, examples: Iterator[Arrays]) -> Parity:
    if network.shape.output is None:
        parity = compare_answers(network, Buckets(graph.data, graph.target.lengths).run, examples)
        parity.check(bound_for(network))
        return parity
    parity = compare_writing(network, _sessions(network, graph), examples)
    parity.check(words_bound(network))
    return parity


def _sessions(network: Network, graph: GraphFile) -> WriterSessions:
    return writer_sessions(network.shape, graph.data, graph.encoder_data, threads=1)


def milder(settings: ExportSettings, details: dict[str, Any]) -> ExportSettings | None:
    """Return settings with a shortlist of twice as many words, or without where that is most of them; an export without
    one changes no accuracy that a milder one could win back.
    """
    listed = settings.shortlist
    if listed is None:
        return None
    told, more = details["shortlist"], {"words": MILDER * listed.words, "first": MILDER * listed.first}
    ends = MILDER * told["listed"] > told["words"] / 2
    return settings.model_copy(update={"shortlist": None if ends else listed.model_copy(update=more)})


def spread(data: Encoded, count: int) -> list[int]:
    """Return `count` row numbers spread evenly over the data, all of them where there are fewer."""
    return [int(row) for row in np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round())]


def _singles(data: Encoded, rows: list[int], progress: Progress) -> Iterator[Arrays]:
    report = progress("compare with PyTorch")
    for number, row in enumerate(rows, start=1):
        yield data.single(row)
        report(number, len(rows))


EXPORT: Stage[ExportSettings, NewBundle] = Stage("export", ExportSettings, run, milder)
