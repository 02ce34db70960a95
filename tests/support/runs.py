"""Runs with figures like real ones, for tests of what is told about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compress.gates import judge_accuracy, judge_agreement, judge_size, judge_speed
from compress.recipe import make_recipe
from compress.record import (
    ArtifactRecord,
    DataRecord,
    Environment,
    FileRecord,
    Latency,
    LayerRecord,
    Measurement,
    RunResult,
    StageResult,
    Verdict,
)
from compress.statistics import metric_interval

ENVIRONMENT = Environment(
    cpu="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
    cores=2,
    threads=1,
    os="Linux-6.8.0-x86_64-with-glibc2.36",
    python="3.11.9",
    torch="2.13.0",
    onnxruntime="1.31.0",
    flags=["avx2", "avx512f", "avx512_vnni", "amx_int8"],
)


class Finished(NamedTuple):
    """A run or search that came to its end in `folder`: its recipe, and what it told."""

    plain: dict[str, Any]
    folder: Path
    result: RunResult


# name, share of right answers, ms, bytes, parameters, layers kept as (heads, ffn), int8 modules, seconds
STAGES = (
    ("teacher", 0.924, 12.4, 91_300_000, 22_713_602, [(12, 1536)] * 6, 0, 1.2),
    ("distill", 0.921, 6.31, 69_900_000, 17_388_674, [(12, 1536)] * 3, 0, 912.0),
    ("prune", 0.917, 3.42, 57_800_000, 14_336_912, [(8, 832), (6, 640), (9, 448)], 0, 640.0),
    ("quantize", 0.916, 1.86, 14_800_000, 14_336_912, [(8, 832), (6, 640), (9, 448)], 20, 48.0),
    ("export", 0.916, 1.81, 14_900_000, 14_336_912, [(8, 832), (6, 640), (9, 448)], 20, 6.4),
)
NUMBER = {"teacher": 0, "train": 0, "distill": 1, "prune": 2, "trim": 3, "quantize": 4, "export": 5}


def measured(
    share: float, *, n: int, classes: int, data: str, seed: int, size: int = 10, parameters: int = 5, **times: Any
) -> Measurement:
    """Return a measurement of `n` examples of which about `share` are right."""
    targets = np.random.default_rng(7).integers(0, classes, n)
    # Hard examples are the same for every model, as in life.
    noise = np.random.default_rng(11).random(n) * 0.9 + np.random.default_rng(seed).random(n) * 0.1
    right = noise < np.quantile(noise, share)
    others = (targets + np.random.default_rng(13).integers(1, min(classes, 4), n)) % classes if classes > 1 else targets
    predictions = np.where(right, targets, others)
    scores = [float(hit) for hit in predictions == targets]
    interval = metric_interval(scores, paired_test="proportions")
    values: dict[str, Any] = {
        "artifact": f"artifact-{seed}",
        "data": data,
        "metric": "accuracy",
        "higher_is_better": True,
        "paired_test": "proportions",
        "summary": "mean",
        "statistics": [],
        "scores": scores,
        "predictions": [int(label) for label in predictions],
        "targets": [int(label) for label in targets],
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "besides": [{"name": "macro_f1", "estimate": share - 0.01, "low": share - 0.03, "high": share + 0.01}],
        "bytes": size,
        "parameters": parameters,
        "latency": None,
        "baseline_latency": None,
        "environment": ENVIRONMENT,
        "truncated": 0,
    }
    return Measurement(**(values | times))


def latency(p50: float, *, seed: int, rounds: int = 20) -> Latency:
    """Return rounds of two passes around `p50` ms."""
    draws = np.random.default_rng(seed).normal(1.0, 0.02, (rounds, 2))
    return Latency(
        lengths=list(range(4, 68)),
        rounds=[[float(p50 * x) for x in row] for row in draws],
        p50_ms=p50,
        p95_ms=2.1 * p50,
        threads=1,
    )


def details_of(stage: str) -> dict[str, Any]:
    """Return what a stage tells, in the form the stages give it."""
    points = [
        {"step": 400 * k, "score": 0.92 - 0.05 / k, "losses": {"mse": 1.1 / k, "hidden": 0.4 / k**0.5}}
        for k in range(1, 7)
    ]
    training = {"points": points, "best_step": 2000, "best_score": 0.91, "examples": 76_800}
    if stage == "prune":
        cuts = [{"heads": [9, 8, 10], "ffn": [1024, 896, 768], "predicted_speedup": 1.41, "lost_importance": 0.012}]
        cuts += [{"heads": [8, 6, 9], "ffn": [832, 640, 448], "predicted_speedup": 1.83, "lost_importance": 0.031}]
        return {"training": training, "rounds": [*cuts[:1], {**cuts[1], "measured_speedup": 1.84}]}
    if stage in ("train", "distill"):
        return {"training": training}
    if stage == "quantize":
        names = [f"layers.{k}.{part}" for k in range(3) for part in ("attention.query", "ffn.up", "ffn.down")]
        rows = [{"name": name, "kl": 4e-6 / (k + 1), "mse": 1e-4, "score_change": 0.0} for k, name in enumerate(names)]
        return {"sensitivity": rows, "sensitivity_examples": 512}
    if stage == "trim":
        texts = {"texts": 1500, "changed": 41, "tokens_per_text": {"before": 12.6, "after": 12.7}}
        texts["truncated"] = {"before": 0, "after": 0}
        sizes = {"pieces": {"before": 30_522, "after": 12_193}, "positions": {"before": 512, "after": 128}}
        return {**sizes, "token_types": {"before": 2, "after": 0}, "covered": 0.998, "validation": texts}
    return {}


def with_trim(run: RunResult, *, same: float = 0.985) -> RunResult:
    """Return a run of three stages or more with a fourth, a trimmed vocabulary, after the pruning."""
    pruned = run.stages[2]
    on = measured(same, n=2000, data="foreign-digest", classes=2, seed=77).model_copy(update={"metric": "agreement"})
    verdicts = [one.model_copy(update={"stage": "trim"}) for one in pruned.verdicts]
    trimmed = pruned.model_copy(
        update={
            "stage": "trim",
            "directory": f"{NUMBER['trim']}-trim",
            "artifact": _artifact("trim", 9_000_000, 6),
            "foreign": on,
            "verdicts": [*verdicts, judge_agreement(stage="trim", measured=on, min_share=0.97)],
        }
    )
    return run.model_copy(update={"stages": [*run.stages[:3], trimmed, *run.stages[3:]]})


def make_run(
    *,
    stages: int = 5,
    classes: int = 2,
    n: int = 1500,
    test: int = 872,
    timed: bool = True,
    labels: list[str] | None = None,
    **changes: Any,
) -> RunResult:
    """Return a run of the first `stages` stages; `changes` take the place of the result's own values."""
    results: list[StageResult] = []
    for seed, (name, share, ms, size, parameters, layers, int8, seconds) in enumerate(STAGES[:stages]):
        common: dict[str, Any] = {"classes": classes, "size": size, "parameters": parameters, "seed": seed}
        times = {"latency": latency(ms, seed=seed), "baseline_latency": latency(12.4, seed=50)} if timed else {}
        validation = measured(share, n=n, data="validation-digest", **common, **times)
        result = StageResult(
            stage=name,
            directory=f"{NUMBER[name]}-{name}",
            artifact=_artifact(name, parameters, seed),
            layers=[LayerRecord(heads=heads, head_size=32, ffn=ffn) for heads, ffn in layers],
            int8=int8,
            seconds=seconds,
            attempt=0,
            validation=validation,
            test=measured(share - 0.006, n=test, data="test-digest", **common) if test else None,
            verdicts=_verdicts(name, results[0].validation, validation) if results else [],
        )
        results.append(result)
    values: dict[str, Any] = {
        "name": "sst2",
        "recipe": make_recipe({"name": "sst2", "distill": {}, "quantize": {}}, where="test").model_dump(mode="json"),
        "labels": labels or (["negative", "positive"] if classes == 2 else [f"class {k}" for k in range(classes)]),
        "data": [
            DataRecord(role="train", source="data/fit.tsv.gz", digest="d" * 64, examples=60_000, truncated=0),
            DataRecord(role="validation", source="data/holdout.tsv.gz", digest="e" * 64, examples=n, truncated=3),
        ],
        "stages": results,
        "passed": all(verdict.passed for result in results for verdict in result.verdicts),
        "computed": [result.stage for result in results],
    }
    return RunResult(**(values | changes))


def _artifact(stage: str, parameters: int, seed: int) -> ArtifactRecord:
    return ArtifactRecord(
        stage=stage,
        key=f"{seed}" * 64,
        digest=f"{seed + 1}" * 64,
        parent=None if seed == 0 else f"{seed}" * 64,
        settings={},
        seed=0,
        code="0.1.0",
        created="2026-01-02T03:04:05Z",
        files={"model.safetensors": FileRecord(sha256="0" * 64, bytes=1)},
        parameters=parameters,
        lineage=[f"{k + 1}" * 64 for k in range(seed)],
        details=details_of(stage),
    )


def _verdicts(stage: str, teacher: Measurement, candidate: Measurement) -> list[Verdict]:
    verdicts = [judge_accuracy(stage=stage, teacher=teacher, candidate=candidate, max_loss=0.02)]
    if candidate.latency is not None and candidate.baseline_latency is not None:
        baseline, own = candidate.baseline_latency.rounds, candidate.latency.rounds
        verdicts.append(judge_speed(stage=stage, baseline_rounds=baseline, candidate_rounds=own, min_speedup=1.5))
    if stage == "export":
        size = judge_size(stage=stage, teacher_bytes=teacher.bytes, candidate_bytes=candidate.bytes, min_ratio=5.0)
        verdicts.append(size)
    return verdicts
