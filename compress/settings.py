"""The recipe's words for data and stages: one frozen class each.

Every key is documented here once; recipes, command-line flags and the documentation are made from these classes.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(Settings):
    """Where the examples are: files (CSV, TSV, JSON Lines, Parquet; folders, archives of images) or hub data sets."""

    train: str | None = Field(None, description="File or hub data set to learn from; labels are optional for distill.")
    validation: str | None = Field(None, description="Labelled file or hub data set that the gates judge on.")
    test: str | None = Field(None, description="Labelled file or hub data set that only the report is made on.")
    extra: str | None = Field(
        None, description="More texts of the task, labels not needed, that students learn from besides."
    )
    foreign: str | None = Field(
        None, description="Texts from elsewhere, unlabelled, on which a smaller vocabulary must change few answers."
    )
    text: str | None = Field(None, description="Column of the text or the image; found by name if left out.")
    text_pair: str | None = Field(None, description="Column of a second text, for sentence pairs.")
    label: str | None = Field(
        None,
        description="Column of the label, or of the text to be written; found by name if left out. Of files of lines, "
        "train.en beside train.de, the ending of the other file: de.",
    )
    train_split: str = Field("train", description="Split of a hub data set to train on.")
    validation_split: str = Field("validation", description="Split of a hub data set that the gates judge on.")
    test_split: str = Field("test", description="Split of a hub data set that the report is made on.")
    extra_split: str = Field("train", description="Split of a hub data set of more texts.")
    foreign_split: str = Field("train", description="Split of a hub data set of texts from elsewhere.")
    foreign_text: str | None = Field(
        None, description="Column of the text in the texts from elsewhere; found by name if left out."
    )
    max_length: Count | None = Field(
        None, description="Longest text in tokens; longer ones are cut and counted. Default: what the positions allow."
    )
    limit: Count | None = Field(None, description="Use only the first examples of the training data, for quick trials.")


class ScheduleSettings(Settings):
    """How long and how fast a network is trained."""

    epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over the training data, copies included.")
    batch_size: Count = Field(32, description="Examples per step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="Highest learning rate (AdamW).")
    warmup: Share = Field(0.06, description="Share of the steps in which the learning rate rises.")
    weight_decay: Weight = Field(0.01, description="Decay of weight matrices (AdamW).")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="Gradient norm above which gradients are scaled down.")
    evaluations_per_epoch: Count = Field(1, description="How often the best-so-far is looked for.")
    int8_epochs: Weight = Field(
        0.0, description="Of the epochs, the last so many are trained with the rounding of dynamic int8."
    )


class LessonSettings(ScheduleSettings):
    """What a student learns from, and how long."""

    copies: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Copies of every text with words changed, labelled by the teacher, to learn from besides.",
    )
    embeddings: Literal["float", "int8", "int4", "int2"] = Field(
        "float",
        description="How the word table is rounded while training; as `quantize.embeddings`, the rest makes up for it.",
    )
    dropout: Share | None = Field(None, description="Dropout while training; the model's own if left out.")


class LossSettings(Settings):
    """What a student learns from its teacher, as weights of the summed loss."""

    kl: Weight = Field(0.0, description="KL divergence of softened logits, times temperature squared (Hinton 2015).")
    temperature: Annotated[float, Field(gt=0)] = Field(2.0, description="Temperature of the softened logits.")
    mse: Weight = Field(1.0, description="Mean squared error of the logits.")
    hidden: Weight = Field(0.0, description="Mean squared error of hidden states, layer by layer.")
    relations: Weight = Field(0.0, description="KL of query, key and value relations in the last layer (MiniLMv2).")
    labels: Weight = Field(0.0, description="The task's own loss on hard labels, where there are any.")

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossSettings:
        if not (self.kl or self.mse or self.hidden or self.relations or self.labels):
            raise ValueError("at least one of kl, mse, hidden, relations and labels must be above 0")
        return self


class ArchitectureSettings(Settings):
    """A network to be built new."""

    layers: Count = Field(4, description="Number of layers.")
    hidden_size: Count = Field(256, description="Width of the residual stream.")
    heads: Count = Field(4, description="Attention heads per layer.")
    ffn: Count = Field(1024, description="FFN neurons per layer.")
    positions: Count = Field(512, description="Longest text, in tokens.")
    family: Literal["bert", "roberta", "vit", "yolos", "marian", "pegasus", "bart", "gpt2"] = Field(
        "roberta",
        description="Whose checkpoint format it is kept in; vit reads images, and yolos finds objects in them; marian, "
        "pegasus (norms before sublayers) and bart (learned positions) write behind a source, gpt2 writes on.",
    )
    decoder_layers: Count | None = Field(
        None, description="Layers that write behind a source; as many as read it if left out."
    )
    beams: Count = Field(4, description="Texts that are weighed at once while one is written (beam search).")
    activation: Literal["gelu", "relu"] = Field("gelu", description="Activation of the FFN.")
    initializer_range: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="Deviation of the weights that are drawn; narrow networks learn sooner from 1 / sqrt(width), which "
        "those that write behind a source or read images get if it is left out, and others 0.02.",
    )
    vocab_size: Count = Field(8000, description="Size of the byte-level BPE vocabulary that is trained.")
    image_size: Count = Field(32, description="Height and width that images are resized to, in pixels.")
    patch_size: Count = Field(4, description="Height and width of the squares that an image is cut into, in pixels.")
    channels: Count = Field(3, description="1 reads images in grey, 3 in colour.")
    detection_tokens: Count = Field(100, description="Most objects that are found in an image.")


class TrainSettings(ScheduleSettings):
    """Fine-tune a checkpoint, or train a new network, into a teacher."""

    architecture: ArchitectureSettings | None = Field(
        None, description="Train a new network of this size, with its own tokenizer, instead of the given checkpoint."
    )
    dropout: Share | None = Field(None, description="Dropout while training; the checkpoint's own if left out.")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Share of a target that all classes, or all words that could be written, have in common."
    )
    augment: bool = Field(
        False, description="Images are shifted by up to an eighth and mirrored at random, anew whenever they are seen."
    )


class DistillSettings(LessonSettings):
    """Build a student out of the teacher and train it on the teacher's outputs."""

    layers: Count | Annotated[float, Field(gt=0.0, lt=1.0)] | tuple[int, ...] = Field(
        3, description="How many of the teacher's layers the student keeps, what share of them, or which (from 0)."
    )
    decoder_layers: Count | tuple[int, ...] | None = Field(
        None,
        description="How many of the teacher's layers that write behind a source are kept, or which; else all.",
    )
    ffn: Count | None = Field(None, description="FFN neurons per layer; the teacher's if left out.")
    hidden_size: Annotated[int, Field(ge=32, multiple_of=32)] | None = Field(
        None,
        description="Width of the residual stream, in steps of 32: the channels that matter most are kept; all "
        "if left out.",
    )
    architecture: ArchitectureSettings | None = Field(
        None, description="A student of this size instead; it keeps the teacher's tokenizer."
    )
    activation: Literal["gelu", "relu"] | None = Field(
        None, description="Activation of the FFN; relu is the quickest to compute; the teacher's if left out."
    )
    norm: Literal["elementwise"] | None = Field(
        None,
        description="`elementwise` scales and shifts instead of normalising (NoNorm), fitted to the teacher's norms; "
        "theirs are kept if left out.",
    )
    losses: LossSettings = Field(default_factory=LossSettings, description="What the student learns from.")
    sequence: bool = Field(
        False, description="Texts to be written are those that the teacher writes, in place of what the data expects."
    )
    attention: Literal["full", "window", "linear"] | None = Field(
        None, description="A token reads all, a window, or (linear) sums over all; what the teacher's do if left out."
    )
    attention_layers: tuple[int, ...] = Field((), description="The student's layers with it (from 0); all if left out.")
    window: Count | None = Field(None, description="Tokens that a window has on each side; 64 if left out.")
    global_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="First tokens that read all and that all read, beside a window; 1 if left out."
    )
    positions: Count | None = Field(
        None, description="Longest text in tokens; where the teacher has fewer, its positions are repeated."
    )
    dimensions: Count | None = Field(
        None, description="Numbers of a sentence embedding: the teacher's main directions (PCA); all if left out."
    )

    @model_validator(mode="after")
    def _attention_is_asked_for(self) -> DistillSettings:
        if self.attention != "window" and (self.window is not None or self.global_tokens is not None):
            raise ValueError("window and global_tokens need attention: window")
        if self.attention is None and self.attention_layers:
            raise ValueError("attention_layers needs attention")
        return self

    @model_validator(mode="after")
    def _an_architecture_says_its_own(self) -> DistillSettings:
        for key in ("activation", "hidden_size"):
            if self.architecture is not None and getattr(self, key) is not None:
                raise ValueError(f"an architecture has its own {key}: give architecture.{key}")
        return self


class RecoverySettings(LessonSettings):
    """Distillation from the teacher after units were cut out."""

    epochs: Annotated[float, Field(ge=0)] = Field(1.0, description="Passes over the training data at the end.")
    losses: LossSettings = Field(default_factory=LossSettings, description="What the pruned model learns from.")


class PruneSettings(Settings):
    """Remove heads and FFN neurons until a target is met, then recover."""

    speedup: Annotated[float, Field(gt=1.0)] | None = Field(
        None,
        description="Target: how many times faster than the stage's input, measured in ONNX Runtime; of what writes by "
        "whole texts.",
    )
    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="Target instead: share of the weights of all layers to remove, those that write included."
    )
    rounds: Count = Field(4, description="Steps in which the target is approached.")
    examples: Count = Field(2048, description="Training examples that heads and neurons are scored on.")
    ffn_multiple: Count = Field(64, description="Kept FFN widths are multiples of this.")
    sublayers: Literal["kept", "removable"] = Field(
        "kept",
        description="`removable`: attention or an FFN goes whole wherever that loses least for its cost; `kept`: only "
        "where the target cannot be met else.",
    )
    compensate: bool = Field(
        True, description="After each cut the output projections make up for what was removed, by least squares."
    )
    arithmetic: Literal["int8", "float"] = Field(
        "int8", description="What a speed-up is measured in: the arithmetic of the graph that will be deployed."
    )
    round_epochs: Annotated[float, Field(ge=0)] = Field(
        0.2, description="Passes over the training data between two rounds."
    )
    recovery: RecoverySettings = Field(default_factory=RecoverySettings, description="Training after the last round.")

    @model_validator(mode="after")
    def _one_target(self) -> PruneSettings:
        if (self.speedup is None) == (self.sparsity is None):
            raise ValueError("give exactly one of speedup and sparsity")
        return self


class TrimRecoverySettings(RecoverySettings):
    """Distillation from the teacher after the vocabulary was cut, on the training texts as they are read then."""

    epochs: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Passes over the training data; with min_count above 1 it learns what rare words fall back to. Not "
        "for a model that writes: its teacher writes other words.",
    )


class TrimSettings(Settings):
    """Drop the pieces of the vocabulary that the training texts do without, unused positions and token types."""

    min_count: Count = Field(
        1, description="Keep the pieces that the training texts, read and written ones, hold at least this often."
    )
    max_pieces: Count | None = Field(
        None, description="Keep at most so many of them, the most frequent; characters and special tokens stay besides."
    )
    first: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Keep the first so many pieces of the vocabulary too: where it was learnt from general text, "
        "these were its most frequent ones.",
    )
    positions: Count | None = Field(
        None,
        description="Longest text in tokens. Default: twice the longest training text, in steps of 64; all of a model "
        "that writes.",
    )
    fold_token_types: bool = Field(
        True, description="Add the vector of the first token type to the positions, where all texts are single ones."
    )
    recovery: TrimRecoverySettings = Field(
        default_factory=TrimRecoverySettings, description="Training with the smaller vocabulary."
    )


class Calibration(str, Enum):
    """How a static activation range is chosen."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


class QuantizeSettings(Settings):
    """Put weights, activations and the embedding table into int8."""

    activations: Literal["dynamic", "static"] = Field(
        "dynamic", description="Scale of the activations: per call, or fixed by calibration."
    )
    calibration: Calibration = Field(Calibration.PERCENTILE, description="How static ranges are chosen.")
    percentile: Annotated[float, Field(gt=50.0, le=100.0)] = Field(
        99.99, description="Share of activations that a percentile range covers."
    )
    calibration_examples: Count = Field(512, description="Training examples that calibration and sensitivity run on.")
    weights: Literal["int8", "int8_blocks", "int4", "int4_blocks"] = Field(
        "int8",
        description="How the weights of linear layers are kept; int4 halves the file, the arithmetic stays int8. With "
        "int8_blocks or int4_blocks what runs for every word that is written is read from memory in so many bits, with "
        "a scale for every block of inputs: all of it, or what makes logits alone, whichever writes a word the "
        "quickest on this machine; int8 without blocks where neither is quicker. For the target cpu.",
    )
    block_size: int | None = Field(
        None,
        description="Inputs of a block of int4_blocks: 32, 64 or 128; 32 if left out. Larger ones are quicker and less "
        "exact.",
    )
    embeddings: Literal["int8", "int4", "int2", "float"] = Field(
        "int8", description="How the embedding tables are kept, one scale per row; int4 and int2 are for words alone."
    )
    reduced_range: bool = Field(
        False,
        description="Weights in 7 of the 8 bits, so that sums of products fit into 16 bits on x86 processors without "
        "VNNI, which would cut them off; `compress verify` says on the device whether they do.",
    )
    compensate: bool = Field(
        False,
        description="Words in few bits are rounded as the answers need it, and output projections make up for the rest "
        "by least squares; for models whose training has not rounded the words already.",
    )
    keep_float: tuple[str, ...] = Field(
        (), description="Linear layers that stay in float, by name or pattern (layers.0.*)."
    )
    sensitivity: bool = Field(True, description="Measure what each layer alone costs.")

    @model_validator(mode="after")
    def _blocks_are_asked_for(self) -> QuantizeSettings:
        if self.block_size is not None and self.weights != "int4_blocks":
            raise ValueError("block_size needs weights: int4_blocks")
        if self.block_size not in (None, 32, 64, 128):
            raise ValueError(f"block_size is {self.block_size}: a block has 32, 64 or 128 inputs")
        return self


class ShortlistSettings(Settings):
    """Weigh at every word those alone that are likely to be written for the source."""

    words: Count = Field(20, description="Words that each token of the source adds: those written most often for it.")
    first: Count = Field(200, description="Words that may be written for any source: those written most often at all.")


class ExportSettings(Settings):
    """Write the ONNX bundle."""

    target: Literal["cpu", "mobile", "web"] = Field(
        "cpu", description="What the bundle is written for; web adds a page that runs it in a browser."
    )
    search: Literal["host", "graph"] = Field(
        "host",
        description="Who looks for the words of a model that writes: the host, step by step, or the graph, which is "
        "one file then that gives whole texts, for devices that cannot call a step.",
    )
    shortlist: ShortlistSettings | None = Field(
        None,
        description="Write words alone that the training texts, or the teacher's where they were learnt, have for such "
        "a source: a shorter step, with search: graph.",
    )
    golden: Count = Field(8, description="Texts whose expected outputs travel in the bundle.")
    lengths: tuple[Count, ...] = Field(
        (),
        description="Lengths in tokens that texts are filled up to, such as 16,32,64,128, for execution providers of "
        "phones that want fixed shapes; with the target mobile.",
    )
    text_in: bool = Field(
        False,
        description="Put the tokenizer into the graph, compared with the original: the model takes a text. Runs with "
        "onnxruntime-extensions; with the target cpu.",
    )

    @field_validator("lengths")
    @classmethod
    def _rising(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(lengths)))

    @model_validator(mode="after")
    def _fit(self) -> ExportSettings:
        if self.lengths and self.target != "mobile":
            raise ValueError("lengths are for the target mobile")
        if self.text_in and self.target != "cpu":
            raise ValueError(f"text_in is for the target cpu: {self.target} has no operators that read texts")
        if self.text_in and self.search == "graph":
            raise ValueError("text_in is for models that answer, and search: graph for those that write")
        if self.shortlist is not None and self.search != "graph":
            raise ValueError("a shortlist is for search: graph, as a host weighs the words that a step gives it")
        return self
