"""Records: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from compress.record import ArtifactRecord, Environment, Figure, FileRecord, Latency, Measurement, Verdict
from models.summary import Summary

ENVIRONMENT = Environment(
    cpu="a processor",
    cores=2,
    threads=1,
    os="Linux 6",
    python="3.11.9",
    torch="2.13.0",
    onnxruntime="1.23.0",
    flags=["avx2", "avx512_vnni"],
)
LATENCY = Latency(lengths=[7, 12], rounds=[[1.5, 1.25], [1.0, 2.0]], p50_ms=1.5, p95_ms=2.0, threads=1)
MEASUREMENT = Measurement(
    artifact="a1",
    data="d1",
    metric="accuracy",
    higher_is_better=True,
    paired_test="proportions",
    summary=Summary.MEAN,
    statistics=[],
    scores=[1.0, 0.0],
    predictions=[1, 0],
    targets=[1, 1],
    estimate=0.5,
    low=0.1,
    high=0.9,
    besides=[Figure(name="macro_f1", estimate=0.25, low=0.0, high=0.75)],
    bytes=1234,
    parameters=99,
    latency=LATENCY,
    baseline_latency=None,
    environment=ENVIRONMENT,
    truncated=0,
)
ARTIFACT = ArtifactRecord(
    stage="prune",
    key="k1",
    digest="d1",
    parent=None,
    settings={"speedup": 2.0, "keep": [1, 2], "nested": {"x": None}},
    seed=0,
    code="0.1.0",
    created="2030-01-01T00:00:00Z",
    files={"model.safetensors": FileRecord(sha256="0" * 64, bytes=8)},
    parameters=99,
    lineage=["d0"],
    details={"heads": [[0, 1], [2]]},
)
VERDICT = Verdict(
    gate="speed",
    stage="prune",
    estimate=2.1,
    low=2.0,
    high=None,
    bound=2.0,
    passed=True,
    decidable=True,
    n=10,
    details={"rounds": 10, "baseline_ms": 2.5},
    message="speed gate: fine",
    advice="",
)
RECORDS: list[BaseModel] = [ENVIRONMENT, LATENCY, MEASUREMENT, ARTIFACT, VERDICT]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read_back(record: BaseModel) -> None:
    assert type(record).model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_unknown_keys_are_refused(record: BaseModel) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        type(record).model_validate({**record.model_dump(), "surprise": 1})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_key_is_needed_and_described(record: BaseModel) -> None:
    for name, field in type(record).model_fields.items():
        assert field.description, name
        if name not in ("format", "besides"):  # besides is younger than measurements that are kept
            with pytest.raises(ValidationError, match=name):
                type(record).model_validate({key: value for key, value in record.model_dump().items() if key != name})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_do_not_change(record: BaseModel) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, next(iter(type(record).model_fields)), 1)


def test_artifact_json_is_as_documented() -> None:
    assert json.loads(ARTIFACT.model_dump_json()) == {
        "format": 1,
        "stage": "prune",
        "key": "k1",
        "digest": "d1",
        "parent": None,
        "settings": {"speedup": 2.0, "keep": [1, 2], "nested": {"x": None}},
        "seed": 0,
        "code": "0.1.0",
        "created": "2030-01-01T00:00:00Z",
        "files": {"model.safetensors": {"sha256": "0" * 64, "bytes": 8}},
        "parameters": 99,
        "lineage": ["d0"],
        "details": {"heads": [[0, 1], [2]]},
    }


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        (MEASUREMENT, {"estimate": float("nan")}, "finite"),
        (MEASUREMENT, {"scores": [1.0, float("inf")]}, "finite"),
        (MEASUREMENT, {"predictions": [1]}, "1 predictions for 2 scores"),
        (MEASUREMENT, {"targets": [1, 2, 3]}, "3 targets for 2 scores"),
        (MEASUREMENT, {"paired_test": "t"}, "proportions"),
        (MEASUREMENT, {"besides": [{"name": "", "estimate": 0.5, "low": 0.4, "high": 0.6}]}, "at least 1"),
        (LATENCY, {"p50_ms": 0.0}, "greater than 0"),
        (LATENCY, {"rounds": []}, "at least 1"),
        (VERDICT, {"gate": "taste"}, "accuracy"),
        (VERDICT, {"details": {"ratio": float("inf")}}, "finite"),
        (ARTIFACT, {"files": {"x": {"sha256": "ABC", "bytes": 1}}}, "pattern"),
        (ARTIFACT, {"files": {"x": {"sha256": "0" * 64, "bytes": -1}}}, "greater than or equal to 0"),
    ],
)
def test_nonsense_is_refused(record: BaseModel, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        type(record).model_validate(record.model_dump() | changes)


def test_counts_stay_whole_numbers() -> None:
    details = Verdict.model_validate_json(VERDICT.model_dump_json()).details
    assert {name: type(value) for name, value in details.items()} == {"rounds": int, "baseline_ms": float}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_scores_survive_to_the_last_bit(scores: list[float]) -> None:
    record = MEASUREMENT.model_copy(update={"scores": scores, "predictions": [], "targets": []})
    assert Measurement.model_validate_json(record.model_dump_json()).scores == scores


def test_records_load_no_torch() -> None:
    code = "import sys, compress.record; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
