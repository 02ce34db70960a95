"""What is asked of a run's outcome, and how it is measured: the recipe's words for gates, searches and measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from compress.settings import Count, Settings


def without_unit(unit: str) -> Callable[[Any], Any]:
    """Return a validator that takes `0.6ms` for 0.6."""

    def plain(value: Any) -> Any:
        return value.strip().removesuffix(unit).rstrip() if isinstance(value, str) else value

    return plain


class AccuracyGate(Settings):
    """Non-inferiority to the original teacher on the validation data, paired."""

    max_loss: Annotated[float, Field(gt=0.0, lt=100.0)] = Field(
        1.0, description="Allowed loss in points: the lower bound of the difference must lie above minus this."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(0.95, description="Of the one-sided lower bound.")


class SpeedGate(Settings):
    """Faster than the teacher, ONNX Runtime against ONNX Runtime, batch 1, the real lengths."""

    min_speedup: Annotated[float, Field(gt=0.0)] = Field(
        1.0,
        description="The lower bound of the ratio of median latencies, of what writes of mean ones, must reach this.",
    )
    max_ms: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Most milliseconds of the median call, or of a mean text, on the machine that measures."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(0.95, description="Of the one-sided lower bound.")


class SizeGate(Settings):
    """Smaller than the teacher's bundle."""

    min_ratio: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="Teacher's bytes over the candidate's, at least."
    )
    max_mb: Annotated[float, Field(gt=0.0)] | None = Field(None, description="Most megabytes (10^6 bytes) in all.")


class AgreementGate(Settings):
    """The same answers on texts from elsewhere as before the vocabulary was trimmed."""

    min_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.97, description="The lower bound of the share of equal answers must reach this."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(0.95, description="Of the one-sided lower bound.")


class Gates(Settings):
    """What a stage's output must pass; a gate left out is not asked."""

    accuracy: AccuracyGate | None = Field(None, description="Bound on the loss of accuracy.")
    speed: SpeedGate | None = Field(None, description="Bound on the speed-up.")
    size: SizeGate | None = Field(None, description="Bound on the size.")
    agreement: AgreementGate = Field(
        default_factory=AgreementGate,
        description="Asked after trim wherever `data.foreign` is given, even if left out.",
    )


class GateSettings(Settings):
    """Gates of every stage, and of single stages."""

    default: Gates = Field(
        default_factory=lambda: Gates(accuracy=AccuracyGate(), speed=SpeedGate()),
        description="Asked after every stage that follows the teacher.",
    )
    distill: Gates | None = Field(None, description="Asked after distill, in place of the default's.")
    prune: Gates | None = Field(None, description="Asked after prune, in place of the default's.")
    trim: Gates | None = Field(None, description="Asked after trim, in place of the default's.")
    quantize: Gates | None = Field(None, description="Asked after quantize, in place of the default's.")
    export: Gates | None = Field(None, description="Asked after export, in place of the default's.")

    def of(self, stage: str) -> Gates:
        """Return the gates of a stage: its own where given, else the default's, gate by gate."""
        own: Gates | None = getattr(self, stage, None)
        if own is None:
            return self.default
        return Gates(
            accuracy=own.accuracy or self.default.accuracy,
            speed=own.speed or self.default.speed,
            size=own.size or self.default.size,
            agreement=own.agreement if "agreement" in own.model_fields_set else self.default.agreement,
        )


class SearchSettings(Settings):
    """Find the best point between right and fast: prune level by level as the recipe's prune stage says, finish each
    level by the stages that follow, judge it once, and end at the first that loses too much.
    """

    max_drop: Annotated[float, Field(gt=0.0, lt=100.0)] | None = Field(
        1.0, description="Most points of the metric below the teacher, with the gate's confidence; none: do not ask."
    )
    max_latency: Annotated[float | None, BeforeValidator(without_unit("ms"))] = Field(
        None, gt=0.0, description="Most ms of the median call; the most accurate level that is so fast is taken."
    )
    max_size: Annotated[float | None, BeforeValidator(without_unit("MB"))] = Field(
        None, gt=0.0, description="Most MB of the bundle; the most accurate level that is so small is taken."
    )
    minutes: Annotated[float, Field(gt=0.0)] = Field(
        60.0,
        description="No level is begun that would end after so many minutes at work, all calls of a search together.",
    )
    fit: bool = Field(
        True,
        description="Shorten trainings that would take longer than the minutes, those of a later level into what is "
        "left of them (of one family), and lengthen those on few texts.",
    )
    levels: Count = Field(12, description="Most levels of a family.")
    first_speedup: Annotated[float, Field(gt=1.0)] | Literal["goal"] | None = Field(
        None,
        description="How many times as fast the first level that is cut is as the model before: a number, `goal` for "
        "one that grows with max_drop, milder where there is time for several levels, or as later levels if left out.",
    )
    trials: Count = Field(1, description="Families that are grown: the recipe's own, then others drawn from the space.")
    space: dict[str, tuple[Any, ...]] = Field(
        {},
        description="What the other families try: recipe key -> choices (`distill.layers: [3, 4]`).",
    )
    storage: str | None = Field(
        None, description="Database URL that several searches share; a file in the run's folder if left out."
    )

    @model_validator(mode="after")
    def _some_goal(self) -> SearchSettings:
        if self.max_drop is None and self.max_latency is None and self.max_size is None:
            raise ValueError("give at least one of max_drop, max_latency and max_size")
        if self.trials > 1 and not self.space:
            raise ValueError("several trials need a space to draw from")
        return self


class MeasureSettings(Settings):
    """How accuracy and latency are measured."""

    rounds: Annotated[int, Field(ge=4)] = Field(20, description="Interleaved rounds (A B B A) of the speed gate.")
    texts: Count = Field(64, description="Validation texts, of the real lengths, run in a round.")
    threads: Count = Field(1, description="Threads that ONNX Runtime may use.")
