"""What our JSON files say: artifacts, measurements and verdicts as frozen records.

Every record refuses unknown keys and numbers that are not finite, so that what is read back is what was written:
`Measurement.model_validate_json(measurement.model_dump_json())` is equal to `measurement`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.shape import LayerShape
from models.summary import Summary

FORMAT = 1

Paired = Literal["proportions", "bootstrap"]
GateName = Literal["accuracy", "speed", "size", "agreement"]


class Record(BaseModel):
    """The rules every record of this file obeys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileRecord(Record):
    """One file of an artifact, as it was when it was sealed."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the file's content, lower-case hexadecimal")
    bytes: int = Field(ge=0, description="length of the file")


class ArtifactRecord(Record):
    """`artifact.json`: where a sealed directory came from and what it holds."""

    format: int = Field(default=FORMAT, ge=1, description="version of this record's layout")
    stage: str = Field(min_length=1, description="name of the stage that wrote it")
    key: str = Field(min_length=1, description="digest of its inputs: settings, parent, data, code version, seed")
    digest: str = Field(min_length=1, description="digest of its content: every file's name and sha256")
    parent: str | None = Field(description="digest of the artifact it was made from; null for the first")
    settings: dict[str, Any] = Field(description="settings of the stage, as in the recipe")
    seed: int = Field(description="seed of every random choice")
    code: str = Field(min_length=1, description="version of this package")
    created: str = Field(description="time of the seal, ISO 8601, UTC")
    files: dict[str, FileRecord] = Field(description="relative path -> what the file was at the seal")
    parameters: int = Field(ge=0, description="numbers in the weights, each table and bias counted")
    lineage: list[str] = Field(description="digests from the first artifact to the parent, oldest first")
    details: dict[str, Any] = Field(description="what the stage has to tell: kept heads, losses, sensitivities")


class Environment(Record):
    """The machine and the software a measurement was taken with."""

    cpu: str = Field(description="model name of the processor")
    cores: int = Field(ge=1, description="cores this process may use")
    threads: int = Field(ge=1, description="threads the runtime was given")
    os: str = Field(description="operating system and release")
    python: str = Field(description="version of Python")
    torch: str = Field(description="version of PyTorch")
    onnxruntime: str = Field(description="version of ONNX Runtime")
    flags: list[str] = Field(description="instruction sets that matter to the kernels: avx2, avx512_vnni, amx_int8")


class Latency(Record):
    """Time of one call at batch 1, measured in interleaved rounds."""

    lengths: list[int] = Field(min_length=1, description="tokens of each timed text, in the order they were run")
    rounds: list[list[float]] = Field(
        min_length=1,
        description="per round, the p50 in ms of each pass of this model (A B B A: two passes); of one that writes, "
        "the mean of its texts",
    )
    p50_ms: float = Field(gt=0, description="median of all calls, ms")
    p95_ms: float = Field(gt=0, description="95th percentile of all calls, ms")
    threads: int = Field(ge=1, description="threads the runtime was given")


class Figure(Record):
    """A figure that is told beside the metric, with its interval; no gate judges it."""

    name: str = Field(min_length=1, description="its name, such as macro_f1")
    estimate: float = Field(description="the figure")
    low: float = Field(description="lower end of its 95 % two-sided interval")
    high: float = Field(description="upper end of its 95 % two-sided interval")


class Measurement(Record):
    """What an artifact does on a data set and on a machine."""

    artifact: str = Field(min_length=1, description="digest of the measured artifact")
    data: str = Field(min_length=1, description="digest of the texts and labels it was measured on")
    metric: str = Field(min_length=1, description="name of the metric, such as accuracy")
    higher_is_better: bool = Field(description="whether a larger metric is a better one")
    paired_test: Paired = Field(description="how two models are compared on the same examples")
    summary: Summary = Field(description="how the metric is made of the statistics of the examples")
    scores: list[float] = Field(
        description="what each example adds to the metric, in the order of the data: their mean"
    )
    statistics: list[list[float]] = Field(
        description="what the metric needs of each example; empty where it is the score alone"
    )
    predictions: list[int] = Field(description="predicted class of each example; empty where there are no classes")
    targets: list[int] = Field(description="expected class of each example; empty where there are no classes")
    estimate: float = Field(description="the metric")
    low: float = Field(description="lower end of the metric's 95 % two-sided interval")
    high: float = Field(description="upper end of the metric's 95 % two-sided interval")
    besides: list[Figure] = Field(
        default_factory=list, description="figures told beside the metric; no gate judges them"
    )
    bytes: int = Field(ge=0, description="size on disk of what is shipped")
    parameters: int = Field(ge=0, description="numbers in the weights")
    latency: Latency | None = Field(description="this model's latency; null where it was not timed")
    baseline_latency: Latency | None = Field(description="the teacher's latency in the same rounds")
    environment: Environment = Field(description="where it was measured")
    truncated: int = Field(ge=0, description="examples longer than the positions allow")

    @model_validator(mode="after")
    def _one_value_per_example(self) -> Measurement:
        columns: tuple[tuple[str, list[Any]], ...] = (
            ("predictions", self.predictions),
            ("targets", self.targets),
            ("statistics", self.statistics),
        )
        for name, values in columns:
            if values and len(values) != len(self.scores):
                raise ValueError(f"{len(values)} {name} for {len(self.scores)} scores")
        if bool(self.statistics) == (self.summary is Summary.MEAN) and self.scores:
            raise ValueError(f"a metric by {self.summary.value} with {len(self.statistics)} rows of statistics")
        return self


class Verdict(Record):
    """What a gate decided, and the figures it decided on.

    For accuracy `estimate` is candidate minus teacher, turned so that a positive value is an improvement; for speed and
    size it is teacher over candidate; for agreement it is a share. `low` and `high` are one-sided bounds, each at the
    gate's confidence.
    """

    gate: GateName = Field(description="which gate")
    stage: str = Field(min_length=1, description="stage whose result was judged")
    estimate: float = Field(description="the judged figure")
    low: float = Field(description="its lower one-sided bound: what is compared with the gate's bound")
    high: float | None = Field(description="its upper one-sided bound")
    bound: float = Field(description="what `low` has to reach")
    passed: bool = Field(description="whether the candidate may go on")
    decidable: bool = Field(description="false where there is too little data to tell")
    n: int = Field(ge=1, description="examples, rounds or files behind the figure")
    details: dict[str, float | int] = Field(description="counts and figures by name")
    message: str = Field(min_length=1, description="the verdict in one sentence, with its figures")
    advice: str = Field(description="what to try; empty where nothing needs doing")


class LayerRecord(Record):
    """What a layer kept."""

    heads: int = Field(ge=0, description="attention heads")
    head_size: int = Field(ge=1, description="features of a head")
    ffn: int = Field(ge=0, description="FFN neurons")
    cross_heads: int | None = Field(None, ge=0, description="heads that read an encoder; null where none do")

    @staticmethod
    def of(layer: LayerShape) -> LayerRecord:
        """Return what a layer of this shape kept."""
        return LayerRecord(heads=layer.heads, head_size=layer.head_size, ffn=layer.ffn, cross_heads=layer.cross_heads)


class DataRecord(Record):
    """One table of examples."""

    role: Literal["train", "validation", "test", "extra", "foreign"] = Field(description="what it is used for")
    source: str = Field(description="file or hub data set, as given")
    digest: str = Field(description="digest of the texts, the classes and the longest length")
    examples: int = Field(ge=0, description="rows")
    truncated: int = Field(ge=0, description="texts longer than the teacher's positions allow, cut")


class Step(Record):
    """A stage that a point of a search went through on its way from the teacher."""

    stage: str = Field(description="name of the stage")
    artifact: str = Field(description="digest of what it made")
    settings: dict[str, Any] = Field(description="its settings, as in a recipe")


class StageResult(Record):
    """A sealed artifact with what was measured and decided of it."""

    stage: str = Field(description="name of the stage; `teacher` for the first")
    directory: str = Field(description="its directory, relative to the run")
    artifact: ArtifactRecord = Field(description="the sealed record")
    layers: list[LayerRecord] = Field(description="what each layer kept; behind those that read, those that write")
    int8: int = Field(ge=0, description="number of modules in int8")
    seconds: float = Field(ge=0, description="time the stage took when it was computed")
    attempt: int = Field(ge=0, description="0, or how often the stage was made milder")
    validation: Measurement = Field(description="on the data that the gates judge on")
    test: Measurement | None = Field(description="on the data that only the report is made on")
    foreign: Measurement | None = Field(
        None, description="share of texts from elsewhere with the answer of the stage's input; null where not asked"
    )
    verdicts: list[Verdict] = Field(description="what the gates decided")
    steps: list[Step] = Field(
        default_factory=list,
        description="of a point of a search: the stages between the teacher and this one, in order",
    )


class RunResult(Record):
    """A whole run, as the summary and the report tell it."""

    format: int = Field(default=FORMAT, description="version of this record's layout")
    name: str = Field(description="name of the run")
    recipe: dict[str, Any] = Field(description="every setting")
    labels: list[str] = Field(description="class names")
    data: list[DataRecord] = Field(description="the tables of examples")
    stages: list[StageResult] = Field(description="the teacher first, then every stage in order")
    passed: bool = Field(description="whether every gate was passed; of a search, whether a point was chosen")
    computed: list[str] = Field(description="stages and levels computed by this call; the others were found finished")
    chosen: str | None = Field(default=None, description="name of the point that a search chose; null for a run")
    notes: list[str] = Field(default_factory=list, description="why a search ended where it did")

    @property
    def last(self) -> StageResult:
        """Return what the run hands over: the chosen point of a search, else the last stage."""
        return next((stage for stage in self.stages if stage.stage == self.chosen), self.stages[-1])
