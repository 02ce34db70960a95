"""A tokenizer that goes into the graph of an export, compared with the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from compress.stage import Context
from export.golden_answers import FLOAT_TOLERANCE
from export.graph_file import GraphFile, text_graph_file
from export.session import Arrays, open_session
from export.target import Target
from export.text.comparison import Compared, check_answers, compare_tokens
from export.text.feeding import row_texts, with_tokens
from export.text.special_tokens import LEAVE_OUT
from export.text_in_graph import require_text_in, tokens_graph
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import Unsupported
from models.network import Network
from models.reading import tokenizer_of
from models.tokenizing import Tokenizing

WHERE = "export.text_in"


def check_text_in(parent: Checkpoint, target: Target, *, paired: bool) -> None:
    """Raise Unsupported where a model, a target or a tokenizer has no form in a graph, or nothing here runs it."""
    open_session(_alone(parent, target, paired=paired), threads=1, texts=True)


@final
@dataclass(frozen=True, slots=True)
class TextIn:
    """A tokenizer whose form in a graph cuts at `positions`, and reads texts, or `paired` ones, as it does itself."""

    tokenizing: Tokenizing
    positions: int
    data: Encoded
    paired: bool
    classes: bool
    read_alike: Compared

    @staticmethod
    def compared(parent: Checkpoint, target: Target, context: Context) -> TextIn:
        """Return the tokenizer of a model, after the validation texts and difficult ones were read by both.

        Raises:
            Mismatch: there is a text that its form in a graph reads otherwise.
            Unsupported: the model, the target or the tokenizer has no such form.
        """
        data, table = context.validation, context.validation.table
        if table is None or len(table) != len(data):
            raise Unsupported("the rows are read in parts of a text", where=WHERE, fix=LEAVE_OUT)
        tokenizing, positions = tokenizer_of(parent.reader, wanted_by=WHERE), parent.shape.usable_positions
        paired = table.pairs is not None
        graph = _alone(parent, target, paired=paired)
        texts, pairs, tick = table.texts, table.pairs, context.progress
        alike = compare_tokens(graph, tokenizing, texts, pairs, positions=positions, progress=tick)
        return TextIn(tokenizing, positions, data, paired, context.task.metric.classes, alike)

    def examples(self, rows: Sequence[int]) -> list[Arrays]:
        """Return the texts of rows beside their tokens."""
        return [with_tokens(row_texts(self.data, row), self.tokenizing, self.positions) for row in rows]

    def graph_file(self, network: Network, plain: GraphFile, examples: Sequence[Arrays]) -> GraphFile:
        """Return the file of the network with the tokenizer in front, which gives for the texts of these examples what
        the `plain` one gives for their tokens.

        Raises:
            Mismatch: it gives something else.
        """
        graph = text_graph_file(network, plain.target, self.tokenizing, paired=self.paired, classes=self.classes)
        check_answers(graph.data, plain.data, examples, tolerance=FLOAT_TOLERANCE)
        return graph


def _alone(parent: Checkpoint, target: Target, *, paired: bool) -> bytes:
    """Return the graph of a model's tokenizer without the model."""
    require_text_in(parent.shape, target)
    tokenizing = tokenizer_of(parent.reader, wanted_by=WHERE)
    graph = tokens_graph(tokenizing, paired=paired, positions=parent.shape.usable_positions)
    return bytes(graph.SerializeToString())
