"""From a recipe's words to what the stages read: the teacher's checkpoint and the examples, by any tokenizer."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import compress
from compress.architectures import READ_IMAGES, new_network
from compress.recipe import Recipe
from compress.record import DataRecord
from compress.refusals import check_export, check_words, check_written
from compress.settings import DataSettings
from export.bundle import Bundle
from models.checkpoint import Checkpoint, read_shape
from models.columns import Wanted
from models.data import Table, read_table
from models.encoded import Encoded, joined
from models.encoding import encode
from models.errors import BadInput
from models.files import digest_of, new_directory, sha256_file
from models.hub import local_directory
from models.progress import Progress, silent
from models.sentence_transformers import module_directories
from models.shape import CLASSIFICATION, ModelShape
from models.targets import NextTargets, Writes
from models.task import Task
from models.tasks import task_named
from models.writing import require_writer
from models.zoo import standard_library
from teacher_student.augmentation import changed_copies, near_words

EMBEDDED = "standard-library"
ROLES = ("train", "validation", "test")
FOREIGN = "foreign"
EXTRA = "extra"
LEARNERS = ("distill", "prune", "trim")  # the stages in which a student learns from a teacher
COPIES_FORMAT = 1  # of changed copies: another number makes them, and what learned from them, anew
CHECKPOINT_FILES = ("*.json", "*/config.json", "*.safetensors")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a run reads. `teacher_digest` says which files `base` came from; `ensemble` teaches besides. With
    `listing` an export lists the words of the training texts.

    Models with tokenizers of their own read the same tables: `encoded` gives the examples as one of them does.
    """

    task: Task
    base: Checkpoint
    teacher_digest: str
    tables: Mapping[str, Table]
    max_length: int | None
    cache: Path
    seed: int
    progress: Progress = silent
    ensemble: tuple[Checkpoint, ...] = ()
    ensemble_digest: str = ""
    listing: bool = False
    _read: dict[tuple[str, bool, str, int], Encoded] = field(default_factory=dict, compare=False)
    _near: dict[str, list[str]] = field(default_factory=dict, compare=False)
    _made: dict[str, Table] = field(default_factory=dict, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.base.shape.labels

    def encoded(self, role: str, model: Checkpoint | Bundle) -> Encoded:
        """Return the examples of a role as `model` reads them: with its own reader, cut to its positions.

        Raises:
            BadInput: as `encode` raises.
        """
        return self._encoded(self.tables[role], model)

    def lessons(self, copies: int, model: Checkpoint, *, draw: str) -> Encoded:
        """Return what a student learns from, as `model` reads it: the training examples, the extra texts, and so many
        changed copies of each; all but the training examples are unlabelled. Another `draw` changes other words.

        Raises:
            BadInput: there are no training examples, or as `encode` raises.
        """
        self.require("train", wanted_by="a student")
        parts = [self.encoded(role, model) for role in ("train", EXTRA) if role in self.tables]
        if copies:
            parts.append(self._encoded(self._copies(copies, draw), model))
        return joined(parts)

    def _copies(self, copies: int, draw: str) -> Table:
        """Return the changed copies of the training texts and the extra ones, without labels."""
        tables = [self.tables[role] for role in ("train", EXTRA) if role in self.tables]
        firsts = [text for table in tables for text in table.texts]
        seconds = [text for table in tables for text in table.pairs or ()]
        digest = digest_of(
            [COPIES_FORMAT, copies, draw, self.seed, self.teacher_digest, *(one.digest for one in tables)]
        )
        if digest not in self._made:
            if not self._near:
                tokenizing = self.base.tokenizing
                words = self.base.weights["embeddings.word.weight"]
                self._near.update(near_words([*firsts, *seconds], tokenizing, words))
            seed = int(digest[:12], 16)
            self._made.clear()  # a stage asks for one draw
            self._made[digest] = Table(
                texts=list(changed_copies(firsts, self._near, copies=copies, seed=seed)),
                pairs=list(changed_copies(seconds, self._near, copies=copies, seed=seed + 1)) if seconds else None,
                labels=None,
                source=f"changed copies of {tables[0].source}",
                digest=digest,
            )
        return self._made[digest]

    def _encoded(self, table: Table, model: Checkpoint | Bundle) -> Encoded:
        longest = self._longest(model)
        key = (table.digest, table.labels is None, model.reader.digest, longest)
        if key not in self._read:
            expected = self.task.targets(table, self.labels)
            if isinstance(expected, NextTargets):  # every model is judged on the blocks that the teacher reads
                expected = NextTargets(self.base.tokenizing, self._longest(self.base))
            self._read[key] = encode(
                table,
                model.reader,
                expected,
                max_length=longest,
                cache=self.cache,
                shared=self.task.shared,
                generation=None if model.shape.output is None else model.generation,
                progress=self.progress("encode"),
            )
        return self._read[key]

    def _longest(self, model: Checkpoint | Bundle) -> int:
        positions = model.shape.usable_positions
        return min(self.max_length or positions, positions)

    def name(self, role: str) -> str:
        """Return the digest of a role's examples, whatever tokenizer reads them: texts, classes, longest length."""
        table = self.tables[role]
        labels = None if table.labels is None else list(self.labels)
        return digest_of([table.digest, labels, self.task.name, self.max_length])

    def read_by(self, stage: str) -> tuple[str, ...]:
        """Return the roles of the examples that a stage may see. Those of the gates and the report are not among them,
        except for validation: the best weights are chosen on it, and it is what an export is compared on, which reads
        training texts for a shortlist alone.
        """
        exported = ("train", "validation") if self.listing else ("validation",)
        roles = {"teacher": (), "export": exported}.get(stage, ("train", "validation"))
        return tuple(role for role in roles if role in self.tables)

    def keys(self, stage: str) -> dict[str, str]:
        """Return the digests of what a stage reads besides its parent."""
        roles = [*self.read_by(stage), *([EXTRA] if EXTRA in self.tables and stage in LEARNERS else [])]
        others = {"ensemble": self.ensemble_digest} if self.ensemble and stage in LEARNERS else {}
        return {"teacher": self.teacher_digest, **others, **{role: self.name(role) for role in roles}}

    def require(self, role: str, *, wanted_by: str) -> None:
        """Check that there are examples of a role.

        Raises:
            BadInput: the recipe names none.
        """
        if role not in self.tables:
            raise BadInput(f"{wanted_by} needs data", where=f"data.{role}", fix=f"Give --{role} FILE.")

    @property
    def records(self) -> tuple[DataRecord, ...]:
        """Return what the report tells of the tables, as the teacher reads them."""
        return tuple(
            DataRecord(
                role=role,
                source=table.source,
                digest=self.name(role),
                examples=len(table),
                truncated=self.encoded(role, self.base).truncated,
            )
            for role, table in self.tables.items()
        )


def load_inputs(recipe: Recipe, *, cache: Path, progress: Progress = silent) -> Inputs:
    """Return the inputs of a recipe, encoded for the teacher and kept in `cache`.

    Raises:
        BadInput, BadFile, Unsupported: as checkpoints, tables and tokenizers raise.
    """
    task = task_named(recipe.task or _teachers_task(recipe))
    tables = _tables(recipe.data, task, cache)
    base, digest = _base(recipe, task, tables, cache)
    check_words(recipe, base)
    check_written(recipe, task)
    tables |= _foreign(recipe.data, task, cache)
    base = replace(base, shape=_able(task, base.shape, where=str(recipe.teacher)))
    if recipe.export is not None:
        paired = any(table.pairs is not None for table in tables.values())
        check_export(recipe.export, base, task, paired=paired, cache=cache)
    others, others_digest = _ensemble(recipe, base)
    length, listing = recipe.data.max_length, recipe.export is not None and recipe.export.shortlist is not None
    inputs = Inputs(task, base, digest, tables, length, cache, recipe.seed, progress, others, others_digest, listing)
    if listing:
        inputs.require("train", wanted_by="export.shortlist")
    for role in tables:  # what is wrong with the data is said before anything is computed
        inputs.encoded(role, base)
    return inputs


def _teachers_task(recipe: Recipe) -> str:
    """Return what the teacher's own head does; a classifier where it has none, or none that labels can teach."""
    if recipe.teacher is None or (recipe.train is not None and recipe.train.architecture is not None):
        return CLASSIFICATION
    shape = _teachers_shape(recipe.teacher)
    if shape.output is not None:
        return shape.output.task
    head = shape.head
    return CLASSIFICATION if head is None or (recipe.train is not None and not head.labels) else head.task


def reads_images(recipe: Recipe) -> bool:
    """Return whether the model that a recipe starts from reads images.

    Raises:
        BadInput, BadFile, Unsupported: as the description of a checkpoint raises.
    """
    if recipe.train is not None and recipe.train.architecture is not None:
        return recipe.train.architecture.family in READ_IMAGES
    return recipe.teacher is not None and _teachers_shape(recipe.teacher).image is not None


def _teachers_shape(source: str) -> ModelShape:
    return read_shape(embedded_teacher() if source == EMBEDDED else local_directory(source))


def _able(task: Task, shape: ModelShape, *, where: str) -> ModelShape:
    """Return the shape of a teacher, its head or its output said to be for the task.

    Raises:
        BadInput: it cannot do the task.
    """
    if task.writes is not Writes.NOTHING:
        require_writer(shape, task.writes, asked=task.name, where=where)
        assert shape.output is not None
        return replace(shape, output=replace(shape.output, task=task.name))
    if shape.head is None:
        raise BadInput(
            "the checkpoint has no head, so it cannot teach", where=where, fix="Fine-tune it first: compress train."
        )
    task.check(shape.head, where=where)
    return replace(shape, head=replace(shape.head, task=task.name))  # a config does not always say what a head is for


def _tables(settings: DataSettings, task: Task, cache: Path) -> dict[str, Table]:
    given = {role: getattr(settings, role) for role in ROLES if getattr(settings, role) is not None}
    tables = {}
    for role, source in given.items():
        wanted = Wanted(embedded_table(source, role, cache), settings.text, settings.text_pair, settings.label)
        table = task.read(wanted, getattr(settings, f"{role}_split"))
        if role != "train" and table.labels is None and task.writes is not Writes.ON:
            raise BadInput("has no label column, so nothing can be judged on it", where=table.source)
        tables[role] = table.first(settings.limit) if role == "train" and settings.limit is not None else table
    if settings.extra is not None:
        source = embedded_table(settings.extra, "train", cache)
        extra = task.read(Wanted(source, settings.text, settings.text_pair), settings.extra_split)
        _check_pairs(extra, tables.get("train"))
        tables[EXTRA] = replace(extra, labels=None)
    return tables


def _foreign(settings: DataSettings, task: Task, cache: Path) -> dict[str, Table]:
    if settings.foreign is None:
        return {}
    wanted = Wanted(embedded_table(settings.foreign, "test", cache), settings.foreign_text)
    read = read_table if task.writes is Writes.NOTHING else task.read
    foreign = read(wanted, settings.foreign_split)
    return {FOREIGN: replace(foreign, labels=None)}  # what a label says elsewhere means nothing here


def _check_pairs(extra: Table, train: Table | None) -> None:
    if train is None:
        raise BadInput("more texts are read only besides training data", where="data.extra", fix="Give --train FILE.")
    if (extra.pairs is None) != (train.pairs is None):
        counts = ["one text" if table.pairs is None else "two texts" for table in (extra, train)]
        raise BadInput(f"has {counts[0]} a row, and {train.source} has {counts[1]}", where=extra.source)


def _base(recipe: Recipe, task: Task, tables: Mapping[str, Table], cache: Path) -> tuple[Checkpoint, str]:
    """Return the checkpoint that the run starts from, and the digest of what it was read or made from."""
    train = recipe.train
    if train is not None and "train" not in tables:
        raise BadInput("train needs data", where="data.train", fix="Give --train FILE.")
    if train is not None and tables["train"].labels is None and task.writes is not Writes.ON:
        raise BadInput("has no label column, so there is nothing to train on", where=tables["train"].source)
    if train is not None and train.architecture is not None:
        table = tables["train"]
        head = None if task.writes is not Writes.NOTHING else task.head_of(table)
        made = new_network(train.architecture, table, head, cache)
        told = None if made.generation is None else made.generation.to_json()
        digest = digest_of([made.shape.to_json(), made.reader.digest, *([told] if told else [])])
        return Checkpoint.new(made.shape, made.reader, seed=recipe.seed, generation=made.generation), digest
    if recipe.teacher is None:
        raise BadInput("no teacher is named", where="teacher", fix="Give --teacher DIRECTORY or a hub name.")
    source = embedded_teacher() if recipe.teacher == EMBEDDED else recipe.teacher
    digest = tree_digest(local_directory(source))
    base = Checkpoint.load(source)
    if train is not None and task.writes is Writes.NOTHING:
        head, own = task.head_of(tables["train"]), base.shape.head
        # A head that knows these labels already stays, with its order of classes.
        if own is None or own.task != task.name or not set(head.labels) <= set(own.labels):
            base = Checkpoint.load(source, head=head, seed=recipe.seed)
    return base, digest


def _ensemble(recipe: Recipe, base: Checkpoint) -> tuple[tuple[Checkpoint, ...], str]:
    """Return the teachers besides the first, and the digest of the files they were read from."""
    directories = [local_directory(source) for source in recipe.ensemble]
    teachers = tuple(Checkpoint.load(directory) for directory in directories)
    if teachers and base.shape.head is not None and base.shape.head.boxes:
        raise BadInput(
            "what one token of a teacher finds, another's finds with another token, so there is no mean of theirs",
            where=recipe.ensemble[0],
            fix="Give one teacher.",
        )
    for source, teacher in zip(recipe.ensemble, teachers, strict=True):
        if (teacher.shape.labels, teacher.shape.outputs) != (base.shape.labels, base.shape.outputs):
            raise BadInput(
                f"its labels {list(teacher.shape.labels)} are not the first teacher's {list(base.shape.labels)}",
                where=source,
                fix="All teachers need the same labels in the same order: see id2label in config.json.",
            )
    return teachers, digest_of([tree_digest(directory) for directory in directories])


def tree_digest(directory: Path) -> str:
    """Return the digest of a checkpoint directory's files, its own record left out."""
    weights = {file for place in module_directories(directory) for file in place.glob("*.safetensors")}
    files = sorted({file for pattern in CHECKPOINT_FILES for file in directory.glob(pattern)} | weights)
    names = {file.relative_to(directory).as_posix(): file for file in files}
    return digest_of({name: sha256_file(file) for name, file in names.items() if name != "artifact.json"})


def embedded_table(source: str, role: str, cache: Path) -> str:
    """Return `source`, or the embedded data set's file of that role, made from this Python's standard library."""
    if source != EMBEDDED:
        return source
    directory = cache / f"{EMBEDDED}-{platform.python_version()}-{compress.__version__}"
    if not directory.exists():
        with new_directory(directory) as partial:
            standard_library.write_tables(partial)
    return str(directory / f"{role}.jsonl")


def embedded_teacher() -> Path:
    """Return the directory of the teacher that is shipped with the package."""
    return Path(standard_library.__file__).parent / EMBEDDED
