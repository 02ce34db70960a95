"""What a network is trained for: labels, or what its teacher says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, final

import torch
from torch import Tensor, nn

from models.block import Block
from models.encoded import Batch, Encoded
from models.network import Features, Network
from models.shape import ModelShape
from models.task import Task
from teacher_student.hidden_states import hidden_pairs, nearest_projection, relation_input, written_pairs
from teacher_student.losses import (
    LossWeights,
    Term,
    answers_of,
    common_relation_heads,
    expected_of,
    hard_labels,
    hidden_mse,
    logits_kl,
    logits_mse,
    relation_kl,
)
from teacher_student.teacher_cache import TeacherOutputs

States = Callable[[int], Tensor]  # number into Features.hidden -> (tokens, width)


@final
class LabelObjective:
    """The task's loss on hard labels, of which `smoothing` is shared by all classes."""

    def __init__(self, task: Task, *, smoothing: float = 0.0) -> None:
        self.task, self.smoothing = task, smoothing
        self.learned: nn.Module = nn.Module()
        self.settings: Mapping[str, Any] = {"task": task.name, "smoothing": smoothing}

    def __call__(self, network: Network, batch: Batch) -> Mapping[str, Term]:
        """Return the loss as one part, "labels"."""
        answered = _answered(network, batch)
        logits, targets = answers_of(network(**batch.inputs), answered), expected_of(batch.targets, answered)
        return {"labels": hard_labels(self.task, logits, targets, smoothing=self.smoothing)}


@final
class DistillationObjective:
    """The student's outputs against the teacher's, as LossWeights says.

    The teacher's logits are kept ones; its hidden states too where `outputs` has them, else they are computed batch by
    batch. Without `outputs`, as the logits of all words would fill a disk, both are. Where the widths of hidden states
    differ, the student's are first projected by linear layers that are learned along (Jiao et al. 2020). Query, key and
    value of the teacher's last layer are computed from its input.
    """

    def __init__(
        self,
        *,
        task: Task,
        teacher: Network,
        student: ModelShape,
        outputs: TeacherOutputs | None,
        weights: LossWeights,
        key: str = "",
        by_words: bool = False,
    ) -> None:
        self.task, self.outputs, self.weights, self.teacher, self.by_words = task, outputs, weights, teacher, by_words
        told = key if outputs is None else outputs.key
        self.settings: Mapping[str, Any] = {"task": task.name, "teacher": told, "weights": asdict(weights)}
        self.pairs = hidden_pairs(weights, student, teacher.shape)
        self.learned: nn.Module = nn.Module()
        self.written = written_pairs(weights, student, teacher.shape)
        if weights.hidden and student.hidden_size != teacher.shape.hidden_size:
            self.learned = nn.ModuleList(
                nn.Linear(student.hidden_size, teacher.shape.hidden_size) for _ in (*self.pairs, *self.written)
            )
        self.last: Block | None = None
        if weights.relations:
            self.last = _block(teacher, len(teacher.shape.layers) - 1)
            self.relation_input = relation_input(teacher.shape)
            self.heads = common_relation_heads(
                weights.relation_heads, student.layers[-1].attention_width, teacher.shape.layers[-1].attention_width
            )

    def begin(self, network: Network, data: Encoded, *, seed: int) -> None:
        """Let the projections of hidden states begin where they take the network's nearest to the teacher's, on a few
        rows of `data`: drawn ones would pull a student away from what it has of the teacher.
        """
        if not isinstance(self.learned, nn.ModuleList) or len(data) == 0:
            return
        batch = data.sample(seed=seed)
        live = self._live(batch) if self._anew else None
        with torch.no_grad():
            compared = self._compared(network.features(**batch.inputs), self._teacher_states(batch, live), batch, live)
            for one, (states, wanted) in zip(self.learned, compared, strict=True):
                weight, bias = nearest_projection(states, wanted)
                one.load_state_dict({"weight": weight, "bias": bias})

    @property
    def _stated(self) -> bool:
        """Whether hidden states count."""
        return bool(self.weights.hidden) or self.last is not None

    @property
    def _anew(self) -> bool:
        """Whether the teacher runs again for every batch, as what is needed of it is not kept."""
        return self.outputs is None or (self._stated and not self.outputs.hidden)

    def __call__(self, network: Network, batch: Batch) -> Mapping[str, Term]:
        """Return the parts of the loss by their names in LossWeights."""
        weights, mask = self.weights, batch.mask
        # Where only answers count, the last layer computes the tokens that are answered for and no others.
        seen = network.features(**batch.inputs) if self._stated else None
        answered = mask & (batch.targets[..., 1] == 1) if self.by_words else _answered(network, batch)
        logits = answers_of(network(**batch.inputs) if seen is None else seen.logits, answered)
        terms: dict[str, Term] = {}
        live = self._live(batch) if self._anew else None
        if weights.kl or weights.mse:
            wanted = self._wanted(batch, live)
            if weights.kl:
                part = logits_kl(self.task, logits, wanted, temperature=weights.temperature)
                terms["kl"] = part._replace(weight=weights.kl)
            if weights.mse:
                terms["mse"] = logits_mse(logits, wanted)._replace(weight=weights.mse)
        if weights.labels:
            part = hard_labels(self.task, logits, expected_of(batch.targets, answered))
            terms["labels"] = part._replace(weight=weights.labels)
        if seen is not None:
            states = self._teacher_states(batch, live)
            if weights.hidden:
                terms["hidden"] = self._hidden(seen, states, batch, live)._replace(weight=weights.hidden)
            if self.last is not None:
                part = self._relations(network, seen, states, mask)
                terms["relations"] = part._replace(weight=weights.relations)
        return terms

    def _live(self, batch: Batch) -> Features:
        """Return what the teacher sees of a batch now."""
        with torch.no_grad():
            return self.teacher.to(batch.mask.device).features(**batch.inputs)

    def _wanted(self, batch: Batch, live: Features | None) -> Tensor:
        """Return the teacher's logits (answers, outputs) of a batch."""
        if self.outputs is not None:
            return self.outputs.logits_of(batch.indices).to(batch.mask.device)
        assert live is not None
        return answers_of(live.logits, _answered(self.teacher, batch))

    def _teacher_states(self, batch: Batch, live: Features | None) -> States:
        """Return what gives the teacher's hidden state of a number for the tokens of a batch, row after row."""
        outputs, mask = self.outputs, read_mask(batch)
        if live is not None:
            hidden = live.hidden
            return lambda layer: hidden[layer][mask].float()
        assert outputs is not None
        return lambda layer: outputs.hidden_of(layer, batch.indices).to(mask.device)

    def _compared(
        self, features: Features, teacher: States, batch: Batch, live: Features | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Return hidden states with the teacher's that they are compared with, each (tokens, width), row after row as
        the teacher's are kept: of what is read, then of what is written.
        """
        mask = read_mask(batch)
        both = [(features.hidden[ours][mask], teacher(theirs)) for ours, theirs in self.pairs]
        if self.written:
            assert live is not None  # no states of decoders are kept
            said, mask = live.written, batch.mask
            both += [(features.written[ours][mask], said[theirs][mask].float()) for ours, theirs in self.written]
        return both

    def _hidden(self, features: Features, teacher: States, batch: Batch, live: Features | None) -> Term:
        parts = []
        for place, (states, wanted) in enumerate(self._compared(features, teacher, batch, live)):
            projected = self.learned[place](states) if isinstance(self.learned, nn.ModuleList) else states
            parts.append(hidden_mse(projected, wanted))
        if not self.written:
            return Term(torch.stack([part.total for part in parts]).mean(), parts[0].size)
        # What is read and what is written has other numbers of tokens: each layer counts by its own.
        size = parts[-1].size
        return Term(torch.stack([part.total * (size / max(1, part.size)) for part in parts]).mean(), size)

    def _relations(self, network: Network, features: Features, teacher: States, mask: Tensor) -> Term:
        assert self.last is not None
        flat = teacher(self.relation_input)
        states = flat.new_zeros(*mask.shape, flat.shape[-1])  # (batch, time, width)
        states[mask] = flat
        with torch.no_grad():
            last = self.last.to(mask.device)
            theirs = last.attention.project(last.attention_input(states))
        block = _block(network, len(network.layers) - 1)
        ours = block.attention.project(block.attention_input(features.hidden[-2]))
        parts = [relation_kl(our, their, mask, heads=self.heads) for our, their in zip(ours, theirs, strict=True)]
        return Term(torch.stack([part.total for part in parts]).sum(), parts[0].size)


def _answered(network: Network, batch: Batch) -> Tensor | None:
    """Return the tokens that a network answers, (batch, time); None where its answers are of rows."""
    return batch.mask if network.shape.answers_tokens else None


def read_mask(batch: Batch) -> Tensor:
    """Return where the tokens are that are read, (batch, time); behind an encoder `batch.mask` is of those written."""
    return batch.inputs["attention_mask"].bool() if "decoder_input_ids" in batch.inputs else batch.mask


def _block(network: Network, index: int) -> Block:
    block = network.layers[index]
    assert isinstance(block, Block)
    return block
