"""Teaching: a student on its teacher's outputs, or a network on labels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from models.block import Block
from models.checkpoint import Checkpoint
from models.encoded import Batch, Encoded, same_tokens
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.layers.packed import FakeRoundedEmbedding
from models.layers.quantized import FakeQuantizedLinear
from models.network import Features, Network
from models.progress import Progress, silent
from models.shape import ModelShape
from models.summary import contributions
from models.task import Task
from teacher_student.directions import in_directions_of
from teacher_student.hidden_states import hidden_pairs, kept_hidden, nearest_projection, relation_input
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
from teacher_student.processes import Processes
from teacher_student.schedule import Schedule
from teacher_student.teacher_cache import TeacherOutputs, check_width, check_words, teacher_outputs
from teacher_student.training import History, fit

Reader = Callable[..., TeacherOutputs]  # (checkpoint, data, numbers of hidden states) -> its outputs
States = Callable[[int], Tensor]  # number into Features.hidden -> (tokens, width)


class Reading(NamedTuple):
    """A teacher, and the rows of the lessons as its tokenizer reads them."""

    teacher: Checkpoint
    train: Encoded
    validation: Encoded | None


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is taught on: the task, the data, the seed, and where files may be written.

    `validation` chooses the best weights; None keeps the last. `teacher_train` and `teacher_validation` are the same
    rows as the teacher's tokenizer reads them, where the student has another one. `ensemble` holds more teachers: what
    is learned are the mean logits of all, and the hidden states of the first. `cache` holds what can be computed
    again and is shared; `scratch` belongs to this one training, which resumes from it.
    """

    task: Task
    train: Encoded
    validation: Encoded | None
    seed: int
    cache: Path
    scratch: Path
    progress: Progress = silent
    teacher_train: Encoded | None = None
    teacher_validation: Encoded | None = None
    ensemble: tuple[Reading, ...] = ()

    @property
    def one_tokenizer(self) -> bool:
        """Return whether teacher and student read the same tokens."""
        return self.teacher_train is None or same_tokens(self.teacher_train, self.train)

    @property
    def by_words(self) -> bool:
        """Return whether answers to tokens are compared at the first token of each word, because not all who read have
        the same tokens.
        """
        if not self.train.by_token:
            return False
        return not (self.one_tokenizer and all(same_tokens(one.train, self.train) for one in self.ensemble))


@final
class LabelObjective:
    """The task's loss on hard labels."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.learned: nn.Module = nn.Module()
        self.settings: Mapping[str, Any] = {"task": task.name}

    def __call__(self, network: Network, batch: Batch) -> Mapping[str, Term]:
        """Return the loss as one part, "labels"."""
        logits = network(**batch.inputs)
        answered = batch.mask if network.shape.answers_tokens else None
        return {"labels": hard_labels(self.task, answers_of(logits, answered), expected_of(batch.targets, answered))}


@final
class DistillationObjective:
    """The student's outputs against the teacher's, as LossWeights says.

    The teacher's logits are kept ones; its hidden states too where `outputs` has them, else they are computed batch by
    batch. Where the widths of hidden states differ, the student's are first projected by linear layers that are learned
    along (Jiao et al. 2020). Query, key and value of the teacher's last layer are computed from its input.
    """

    def __init__(
        self,
        *,
        task: Task,
        teacher: Network,
        student: ModelShape,
        outputs: TeacherOutputs,
        weights: LossWeights,
        by_words: bool = False,
    ) -> None:
        self.task, self.outputs, self.weights, self.teacher, self.by_words = task, outputs, weights, teacher, by_words
        self.settings: Mapping[str, Any] = {"task": task.name, "teacher": outputs.key, "weights": asdict(weights)}
        self.pairs = hidden_pairs(weights, student, teacher.shape)
        self.learned: nn.Module = nn.Module()
        if weights.hidden and student.hidden_size != teacher.shape.hidden_size:
            self.learned = nn.ModuleList(nn.Linear(student.hidden_size, teacher.shape.hidden_size) for _ in self.pairs)
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
        with torch.no_grad():
            hidden, teacher = network.features(**batch.inputs).hidden, self._teacher_states(batch, batch.mask)
            for one, (ours, theirs) in zip(self.learned, self.pairs, strict=True):
                weight, bias = nearest_projection(hidden[ours][batch.mask], teacher(theirs))
                one.load_state_dict({"weight": weight, "bias": bias})

    def __call__(self, network: Network, batch: Batch) -> Mapping[str, Term]:
        """Return the parts of the loss by their names in LossWeights."""
        weights, mask = self.weights, batch.mask
        features = network.features(**batch.inputs)
        of_tokens = mask if network.shape.answers_tokens else None
        answered = mask & (batch.targets[..., 1] == 1) if self.by_words else of_tokens
        logits = answers_of(features.logits, answered)
        terms: dict[str, Term] = {}
        if weights.kl or weights.mse:
            wanted = self.outputs.logits_of(batch.indices).to(mask.device)
            if weights.kl:
                part = logits_kl(self.task, logits, wanted, temperature=weights.temperature)
                terms["kl"] = part._replace(weight=weights.kl)
            if weights.mse:
                terms["mse"] = logits_mse(logits, wanted)._replace(weight=weights.mse)
        if weights.labels:
            part = hard_labels(self.task, logits, expected_of(batch.targets, answered))
            terms["labels"] = part._replace(weight=weights.labels)
        if weights.hidden or self.last is not None:
            states = self._teacher_states(batch, mask)
            if weights.hidden:
                terms["hidden"] = self._hidden(features, states, mask)._replace(weight=weights.hidden)
            if self.last is not None:
                part = self._relations(network, features, states, mask)
                terms["relations"] = part._replace(weight=weights.relations)
        return terms

    def _teacher_states(self, batch: Batch, mask: Tensor) -> States:
        """Return what gives the teacher's hidden state of a number for the tokens of a batch, row after row."""
        if self.outputs.hidden:
            return lambda layer: self.outputs.hidden_of(layer, batch.indices).to(mask.device)
        with torch.no_grad():
            teacher = self.teacher.to(mask.device)
            hidden = teacher.features(**batch.inputs).hidden
        return lambda layer: hidden[layer][mask].float()

    def _hidden(self, features: Features, teacher: States, mask: Tensor) -> Term:
        parts = []
        for place, (ours, theirs) in enumerate(self.pairs):
            states = features.hidden[ours][mask]  # (tokens, width): row after row, as the teacher's are kept
            if isinstance(self.learned, nn.ModuleList):
                states = self.learned[place](states)
            parts.append(hidden_mse(states, teacher(theirs)))
        total = torch.stack([part.total for part in parts]).mean()
        return Term(total, parts[0].size)

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


def _block(network: Network, index: int) -> Block:
    block = network.layers[index]
    assert isinstance(block, Block)
    return block


def distill(
    teacher: Checkpoint,
    student: Checkpoint,
    *,
    lessons: Lessons,
    weights: LossWeights,
    schedule: Schedule,
) -> tuple[Checkpoint, History]:
    """Return the student trained on the teacher's outputs, and what happened.

    Serves distillation and the recovery after pruning. In the last `schedule.int8_epochs` every linear layer rounds as
    dynamic int8 does (quantization-aware training). Labels are not needed; without labels in the validation data its
    score is the agreement with the teacher.

    Raises:
        BadInput: models of different labels or numbers of answers, a quantized student, no examples, or a loss on
            every token where the two read other tokens.
    """
    for what in ("labels", "answers"):
        ours, theirs = (getattr(model.shape, what) for model in (student, teacher))
        if ours != theirs:
            raise BadInput(f"the student's {what} {ours} are not the teacher's {theirs}", where="distill")
    if (weights.hidden or weights.relations) and not lessons.one_tokenizer:
        raise _other_tokens(teacher, student)
    outputs_of = _reader(student, lessons, schedule)
    objective = _objective(teacher, student, lessons, weights, outputs_of)
    network = _trainable(student, schedule)
    objective.begin(network, lessons.train, seed=lessons.seed)
    history = fit(
        network,
        objective=objective,
        data=lessons.train,
        schedule=schedule,
        evaluate=_judge(teacher, lessons, outputs_of),
        seed=lessons.seed,
        scratch=lessons.scratch,
        progress=lessons.progress,
    )
    return student.of(network), history


def _other_tokens(teacher: Checkpoint, student: Checkpoint) -> BadInput:
    """Return what is the matter where tokens are to be compared that are not the same."""
    longest = [one.shape.usable_positions for one in (student, teacher)]
    why, instead = "the student has a tokenizer of its own", "trim the vocabulary last"
    if student.reader.digest == teacher.reader.digest and longest[0] != longest[1]:
        why = f"the student reads texts of up to {longest[0]} tokens and its teacher of up to {longest[1]}"
        instead = f"cut both to what both read (data.max_length: {min(longest)})"
    return BadInput(
        f"hidden states and relations are compared token by token, but {why}",
        where="distill",
        fix=f"Learn from logits alone (losses hidden: 0, relations: 0), or {instead}.",
    )


def _reader(student: Checkpoint, lessons: Lessons, schedule: Schedule) -> Reader:
    """Return what gives a teacher's outputs, kept in the cache, as the lessons need them."""
    compute = schedule.compute
    processes = Processes.join(compute)

    def outputs_of(one: Checkpoint, data: Encoded, hidden: tuple[int, ...] = ()) -> TeacherOutputs:
        alike = in_directions_of(student, one)
        found = processes.first_goes_ahead(
            lambda: teacher_outputs(
                alike, data, hidden=hidden, cache=lessons.cache, compute=compute, progress=lessons.progress
            )
        )
        return found.of_words(data) if lessons.by_words else found

    return outputs_of


def _objective(
    teacher: Checkpoint, student: Checkpoint, lessons: Lessons, weights: LossWeights, outputs_of: Reader
) -> DistillationObjective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lessons.seed)  # the projections of the hidden loss are drawn here
        read = lessons.teacher_train or lessons.train
        kept = kept_hidden(weights, student.shape, teacher.shape, tokens=int(read.offsets[-1]))
        others = [outputs_of(one.teacher, one.train) for one in lessons.ensemble]
        outputs = outputs_of(teacher, read, kept).averaged(others)
        if weights.mse:
            check_width(outputs, student.shape)
        if lessons.by_words:
            check_words(lessons.train, outputs)
        return DistillationObjective(
            task=lessons.task,
            teacher=teacher.network(),
            student=student.shape,
            outputs=outputs,
            weights=weights,
            by_words=lessons.by_words,
        )


def _judge(teacher: Checkpoint, lessons: Lessons, outputs_of: Reader) -> Callable[[Network], float] | None:
    """What an epoch is judged by: the labels of the validation data, or the teachers' answers where there are none."""
    if lessons.validation is None:
        return None
    agreed = None
    unlabelled = not lessons.validation.labelled.all()
    if unlabelled and lessons.by_words:  # the teacher's answers are to other tokens
        return None
    if unlabelled:
        others = [outputs_of(one.teacher, one.validation) for one in lessons.ensemble if one.validation is not None]
        agreed = outputs_of(teacher, lessons.teacher_validation or lessons.validation).averaged(others)
    return scorer(lessons.task, lessons.validation, agreed)


def fine_tune(checkpoint: Checkpoint, *, lessons: Lessons, schedule: Schedule) -> tuple[Checkpoint, History]:
    """Return the checkpoint trained on hard labels, and what happened.

    Raises:
        BadInput: no labelled example, labels that the head does not have, or a quantized checkpoint.
    """
    if not lessons.train.labelled.any():
        raise BadInput("no example has a label, so there is nothing to train on", where="training data")
    classes = lessons.train.targets[:, 0] if lessons.train.by_token else lessons.train.targets
    if np.issubdtype(classes.dtype, np.integer) and int(classes.max()) >= len(checkpoint.shape.labels):
        raise BadInput(f"label number {int(classes.max())}, but the model has {len(checkpoint.shape.labels)} labels")
    network = _trainable(checkpoint, schedule)
    evaluate = None if lessons.validation is None else scorer(lessons.task, lessons.validation, None)
    history = fit(
        network,
        objective=LabelObjective(lessons.task),
        data=lessons.train,
        schedule=schedule,
        evaluate=evaluate,
        seed=lessons.seed,
        scratch=lessons.scratch,
        progress=lessons.progress,
    )
    return checkpoint.of(network), history


def scorer(task: Task, data: Encoded, teacher: TeacherOutputs | None) -> Callable[[Network], float]:
    """Return what scores a network on `data`, higher is better: the task's metric, on the labels or on the teacher's
    answers where there is a teacher.
    """
    judged = data if teacher is None else replace(data, targets=task.predict(teacher.logits, data))
    sign = 1.0 if task.metric.higher_is_better else -1.0

    def score(network: Network) -> float:
        statistics = task.statistics(evaluate_logits(network, data), judged, network.shape.labels)
        return sign * float(contributions(task.metric.summary, statistics).mean())

    return score


def _trainable(checkpoint: Checkpoint, schedule: Schedule) -> Network:
    if checkpoint.shape.int8:
        raise BadInput("a quantized model cannot be trained", where="training", fix="Train first, quantize after.")
    network = checkpoint.network()
    if schedule.words is not None:
        words = dict(network.embeddings.named_children()).get("word")
        if not isinstance(words, nn.Embedding):
            raise BadInput(
                "the network has no words whose table could round", where="embeddings", fix="Leave it float."
            )
        rounded = FakeRoundedEmbedding(words, schedule.words)
        network.set_submodule("embeddings.word", rounded, strict=True)
    if schedule.int8_epochs:
        linear = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
        for path, module in linear:
            if module.weight.numel():
                network.set_submodule(path, FakeQuantizedLinear(module), strict=True)
    return network
